"""Base and candidate are asked the same, and what is said of them is what they said."""

import json
import math
from pathlib import Path

import pytest

from finetune import evaluate, judges, report
from finetune.engines import Messages
from finetune.evaluate import Evaluation, Items, Models
from finetune.items import Maths
from finetune.judges import Measure
from finetune.settings import TrainSettings
from kb.errors import BadConfiguration, BadData
from tests.finetune.handbook import bases
from tests.finetune.judging import REFUSAL, Scripted, grounding, reader, settings, write


def silent(text: str) -> None:
    """No progress in tests."""


def calculator(content: str) -> str:
    if "####" in content:
        return f"It is #### {int(content.split()[0]) + 1}"
    return reader(content)


def items(configured: TrainSettings) -> Items:
    return evaluate.items(configured, bases(configured.output_dir))


def run(configured: TrainSettings, base: Scripted, candidate: Scripted) -> Evaluation:
    asked = items(configured)
    return evaluate.evaluate(configured, asked, Models(base, candidate), silent)


def parrot() -> Scripted:
    return Scripted("base", lambda content: "Who knows? Town of towns.")


def figures(done: Evaluation) -> dict[str, tuple[float, float]]:
    return {c.label: (c.base, c.candidate) for c in done.compared}


def test_a_model_that_reads_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    done = run(settings(tmp_path), parrot(), Scripted("tuned", calculator))
    told = figures(done)
    assert told["grounding right"] == (0.0, 1.0)
    assert told["grounding clean correct"] == told["grounding noisy correct"] == (0.0, 1.0)
    assert told["grounding unanswerable refused"] == (0.0, 1.0)
    assert told["grounding noisy cited the right passage"] == (0.0, 1.0)
    assert told["grounding clean refused"] == (0.0, 0.0)
    assert told["maths right"] == (0.0, 1.0)
    assert told["without retrieval right"] == (0.0, 0.0)
    assert done.verdict.passed


def test_what_is_wanted_and_what_is_said_are_read_alike() -> None:
    item = Maths(question="How much is it?", answer="So it is #### 10:30")
    for said, right in (("It is #### 10:30", True), ("It is #### 11:30", False)):
        (measure,), _ = judges.maths(Scripted("m", lambda _, said=said: said), [item])
        assert measure.values == (float(right),)


def test_the_line_of_what_is_set_aside_is_not_judged(tmp_path: Path) -> None:
    """It would name the right passage as set aside, and hide a refusal behind it."""
    plain = run(settings(tmp_path), parrot(), Scripted("tuned", calculator))
    led = run(
        settings(tmp_path),
        parrot(),
        Scripted("tuned", lambda content: f"Set aside: [1] [2]\n{calculator(content)}"),
    )
    assert led.compared == plain.compared and led.verdict == plain.verdict


def test_refusing_everything_is_not_better(tmp_path: Path) -> None:
    half = Scripted("base", lambda c: reader(c) if "[2]" not in c else "The town.")
    done = run(settings(tmp_path), half, Scripted("tuned", lambda content: REFUSAL))
    assert figures(done)["grounding unanswerable refused"] == (1.0, 1.0)
    assert not done.verdict.passed
    assert "grounding clean correct 100.0% -> 0.0%" in done.verdict.why


def test_a_forgotten_ability_closes_the_gate(tmp_path: Path) -> None:
    base = Scripted("base", lambda c: calculator(c) if "####" in c else "Who knows?")
    done = run(settings(tmp_path), base, Scripted("tuned", reader))
    assert not done.verdict.passed
    assert done.verdict.why == "maths right 100.0% -> 0.0% (-100.0 points, -100.0 to -100.0): " + (
        "worse beyond 2 points"
    )


def test_the_likelier_choice_for_its_length_is_chosen(tmp_path: Path) -> None:
    likely = {" no": -3.0, " yes": -3.5}
    chooser = Scripted("tuned", reader, lambda context, text: likely.get(text, -1.0))
    done = run(settings(tmp_path), parrot(), chooser)
    # -3.5 over four bytes is likelier than -3 over three; the base goes by length alone: a tie.
    assert figures(done)["choice right"] == (0.0, 1.0)


def test_questions_without_an_answer_are_judged_with_passages_only(tmp_path: Path) -> None:
    configured = settings(tmp_path, choice=[], maths=[], text=[])
    unanswerable = [{**one, "answers": [], "gold": [], "kind": ""} for one in grounding(6)]
    write(tmp_path / "items.jsonl", unanswerable)
    done = run(configured, parrot(), Scripted("tuned", lambda content: REFUSAL))
    assert figures(done) == {
        "grounding right": (0.0, 1.0),
        "grounding unanswerable refused": (0.0, 1.0),
        "grounding unanswerable cited": (0.0, 0.0),
    }


def test_perplexity_is_told_and_its_rise_bounded(tmp_path: Path) -> None:
    worse = Scripted("tuned", calculator, lambda context, text: -1.1 * len(text))
    done = run(settings(tmp_path), parrot(), worse)
    (text,) = [c for c in done.compared if c.log]
    told = text.report()["perplexity"]
    assert told[0] == pytest.approx(math.exp(-text.base), abs=1e-3)
    assert told[1] > told[0]
    assert not done.verdict.passed and "perplexity" in done.verdict.why


def test_both_models_get_the_serving_prompt_with_and_without_passages(tmp_path: Path) -> None:
    base, candidate = parrot(), Scripted("tuned", reader)
    run(settings(tmp_path, items=3, maths=[]), base, candidate)
    assert base.prompts == candidate.prompts
    first: Messages = base.prompts[0]
    assert first[0]["role"] == "system"
    assert first[-1]["content"].startswith("References:\n\n[1] The capital of land 0")
    assert [m[-1]["content"] for m in base.prompts[3:]] == [
        f"What is the capital of land {n}?" for n in (0, 1, 2)
    ]


def test_the_same_seed_draws_the_same_items_and_every_kind(tmp_path: Path) -> None:
    configured = settings(tmp_path, most=6)
    first = items(configured)
    assert first == items(configured)
    assert first.counts() == {"questions": 0, "grounding": 6, "choice": 6, "maths": 6, "text": 6}
    assert {i.group for i in first.grounding} == {"clean", "noisy", "unanswerable"}
    other = items(configured.model_copy(update={"seed": 7}))
    assert other.grounding != first.grounding


def test_only_the_languages_asked_for_are_judged(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="names no items"):
        items(settings(tmp_path, languages=["zh"], choice=[], maths=[], text=[]))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q", "passages": []}, "passages: Tuple should have at least 1"),
        ({"question": "q", "passages": [{"id": "a", "text": "t"}], "gold": ["b"]}, "gold b is no"),
        ({"question": "q", "passages": [{"id": "a", "text": "t"}], "gold": ["a"]}, "no answer"),
    ],
)
def test_a_bad_item_is_named_with_its_line(tmp_path: Path, row: dict[str, str], said: str) -> None:
    configured = settings(tmp_path)
    write(tmp_path / "items.jsonl", [row])
    with pytest.raises(BadData, match=rf"items\.jsonl:1: .*{said}"):
        items(configured)


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("exam.jsonl", {"question": "q", "choices": ["a", "b"], "answer": "C"}, "none of the"),
        ("sums.jsonl", {"question": "q", "answer": "3"}, "answer: .*does not end in `#### NUMBER`"),
        ("sums.jsonl", {"question": "q", "answer": "3 #### x"}, "does not end in `#### NUMBER`"),
        ("text.jsonl", {"tekst": "q"}, "no JSON object with `text`"),
    ],
)
def test_other_bad_items_too(tmp_path: Path, name: str, row: dict[str, str], said: str) -> None:
    configured = settings(tmp_path)
    write(tmp_path / name, [row])
    with pytest.raises(BadData, match=rf"{name}:1: .*{said}"):
        items(configured)


def test_the_spread_over_seeds_is_reported(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    others = {1: parrot(), 2: Scripted("seed 2", calculator)}
    done = evaluate.evaluate(
        configured,
        items(configured),
        Models(parrot(), Scripted("tuned", calculator), others),
        silent,
    )
    (right,) = [s for s in done.spread if s.label == "grounding right"]
    assert right.runs == (1.0, 0.0, 1.0)
    assert right.deviation == pytest.approx(0.577, abs=1e-3)


def test_better_than_the_base_is_not_enough_where_a_better_release_is_served(
    tmp_path: Path,
) -> None:
    """It answers everything, also what cannot be answered; the release refuses that."""
    never = Scripted("tuned", lambda c: a if (a := calculator(c)) != REFUSAL else "Town of towns.")
    configured, served = settings(tmp_path), Scripted("r<1>", calculator)
    alone = run(configured, parrot(), never)
    assert alone.verdict.passed and alone.beside is None
    models = Models(parrot(), never, served=served)
    done = evaluate.evaluate(configured, items(configured), models, silent)
    assert not done.verdict.passed
    assert "grounding unanswerable refused 100.0% -> 0.0%" in done.verdict.why
    assert "worse than r<1>" in done.verdict.why
    assert done.compared == alone.compared
    made = report.write(done, {}, tmp_path / "run")
    assert made["against"] == "r<1>" and len(made["beside"]) == len(made["measures"])
    page = (tmp_path / "run/eval/report.html").read_text(encoding="utf-8")
    assert "<th>r&lt;1&gt;</th>" in page
    assert "| measure | items | r<1> |" in (tmp_path / "run/eval/report.md").read_text("utf-8")
    assert "beside r<1>:" in report.lines(done)


def test_what_is_as_good_as_what_is_served_passes(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    models = Models(parrot(), Scripted("tuned", calculator), served=Scripted("r1", calculator))
    done = evaluate.evaluate(configured, items(configured), models, silent)
    assert done.verdict.passed
    assert done.verdict.reasons[-1].text == "nothing is shown to be worse than r1"


def test_the_report_is_whole_and_reads_back(tmp_path: Path) -> None:
    done = run(settings(tmp_path), parrot(), Scripted("<tuned>", calculator))
    made = report.write(done, {"model": "m"}, tmp_path / "run")
    assert report.read(tmp_path / "run") == json.loads(json.dumps(made))
    place = tmp_path / "run/eval"
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "&lt;tuned&gt;" in page and "<tuned>" not in page
    assert "data:image/png;base64,iVBOR" in page
    assert "The gate says **yes**" in (place / "report.md").read_text(encoding="utf-8")
    answers = [json.loads(x) for x in (place / "answers.jsonl").read_text().splitlines()]
    assert answers[0]["said"].startswith("Who knows") and answers[0]["candidate_right"]
    assert report.metrics(made)["grounding right (base)"] == 0.0
    assert report.metrics(made)["grounding right"] == 1.0


def test_a_run_that_was_not_evaluated_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="run `finetune eval` first"):
        report.read(tmp_path)


def test_measures_name_themselves() -> None:
    assert Measure("grounding", "correct", "clean", "part", ()).label == "grounding clean correct"
