"""The field's questions are judged over what the serving retriever finds in the knowledge base."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune import evaluate, retrieved
from finetune.bases import Bases
from finetune.dataset import prepare
from finetune.evaluate import Evaluation, Models
from finetune.items import MISSED
from finetune.settings import TrainSettings, load
from kb import prompt
from kb.embedders import Embedders
from kb.errors import BadConfiguration, BadData, UnknownKnowledgeBase
from kb.settings import KbSettings
from tests.finetune.handbook import NAME, SETTINGS, bases, fill
from tests.finetune.judging import REFUSAL, Scripted, settings, write
from tests.kb.bases import Base

CLOSES = "When does the pharmacy close on Saturdays?"
ASKED = [
    {"question": CLOSES, "answers": ["13:15"], "gold": ["pharmacy.md"]},
    {"question": "How much Zelvorin does an adult take?", "answers": ["8 mg"], "gold": "dosing.md"},
    {"question": "How high is Mount Everest?", "answers": [], "gold": []},
    {"question": "Where is the harbour?", "answers": ["pier 9"], "gold": ["harbour.md"]},
]


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    made = fill(tmp_path)
    yield made
    made.close()


def configured(
    home: Path, asked: Sequence[Mapping[str, Any]] = ASKED, **more: Any
) -> TrainSettings:
    file = str(write(home / "asked.jsonl", asked))
    return settings(home, **{"questions": [file], "kb": NAME, "grounding": [], "maths": []} | more)


def run(wanted: TrainSettings, home: Path, says: Callable[[str], str]) -> Evaluation:
    asked = evaluate.items(wanted, bases(home))
    base = Scripted("base", lambda content: "Who knows?")
    candidate = Scripted("tuned", says)
    done = evaluate.evaluate(wanted, asked, Models(base, candidate), lambda text: None)
    assert base.prompts == candidate.prompts
    return done


def reader(content: str) -> str:
    """Answers two of the questions from the reference that tells, refuses the others."""
    answers = {"How much": "8 mg", "When does": "13:15"}
    references, question = content.split("Question: ") if "Question: " in content else ("", content)
    answer = next((a for q, a in answers.items() if question.startswith(q)), "nothing")
    cited = (line.split(" ", 1)[0] for line in references.splitlines() if answer in line)
    return f"It is {answer} {number}." if (number := next(cited, "")) else REFUSAL


def test_a_question_is_asked_over_the_servers_hits_in_the_servers_prompt(
    tmp_path: Path, base: Base
) -> None:
    wanted = configured(tmp_path, top_k=3)
    asked = evaluate.items(wanted, bases(tmp_path))
    engine = Scripted("m", lambda content: "")
    evaluate.measure(engine, asked, wanted.eval, 160, lambda text: None)
    found = base.reader(SETTINGS).search(CLOSES, 3)
    assert len(found.hits) == 3 and asked.generation == found.generation
    shown = prompt.excerpts(CLOSES, found.hits, 160)
    assert engine.prompts[0] == prompt.messages(CLOSES, shown)
    # Retrieval off: the same questions bare, but for the one that has no answer.
    bare = [messages[0]["content"] for messages in engine.prompts[4:]]
    assert bare == [one["question"] for one in ASKED if one["answers"]]


def test_right_cited_refused_and_missed_are_told_apart(tmp_path: Path, base: Base) -> None:
    done = run(configured(tmp_path), tmp_path, reader)
    told = {c.label: (c.n, c.base, c.candidate) for c in done.compared if c.ability != "text"}
    assert told["field right"] == (3, 0.0, 1.0)
    assert told["field clean correct"] == (2, 0.0, 1.0)
    assert told["field clean cited the right passage"] == (2, 0.0, 1.0)
    assert told["field unanswerable refused"] == (1, 0.0, 1.0)
    assert told["field missed correct"] == (1, 0.0, 0.0)
    assert told["field missed refused"] == (1, 0.0, 1.0)
    assert told["field without retrieval right"] == (3, 0.0, 0.0)


def test_the_gate_asks_for_better_answers_to_the_fields_questions(
    tmp_path: Path, base: Base
) -> None:
    several = [
        {**one, "question": f"{one['question']} {'Say' * n}"} for n in range(9) for one in ASKED
    ]
    assert run(configured(tmp_path, several), tmp_path, reader).verdict.passed
    refusing = run(configured(tmp_path, several), tmp_path, lambda content: "Who knows?").verdict
    assert not refusing.passed and "field right" in refusing.why


def test_what_the_retriever_missed_counts_for_no_model(tmp_path: Path, base: Base) -> None:
    wanted = configured(tmp_path, ASKED[3:])
    (item,) = evaluate.items(wanted, bases(tmp_path)).questions
    assert item.group == MISSED
    done = run(wanted, tmp_path, lambda content: "It is pier 9.")
    assert not [c for c in done.compared if c.ability == "field" and c.purpose != "told"]
    assert "nothing of the field was measured" in done.verdict.why


def test_an_edit_is_seen_by_the_next_evaluation(tmp_path: Path, base: Base) -> None:
    wanted = configured(tmp_path, ASKED[3:])
    base.put("harbour.md", "The harbour is at pier 9, behind the mill.")
    (item,) = evaluate.items(wanted, bases(tmp_path)).questions
    assert item.group == "clean" and "pier 9" in item.passages[0].text


def test_only_the_languages_asked_for_are_searched(tmp_path: Path, base: Base) -> None:
    chinese = {"question": "药房几点开门？", "answers": ["八点"], "gold": ["zh.md"]}
    german = {"question": "Wann ist die Apotheke auf?", "answers": ["acht"], "gold": ["de.md"]}
    both = [*ASKED[:1], chinese, german]
    for languages, count in (["en"], 1), (["zh"], 1), (["de"], 1), ([], 3):
        wanted = configured(tmp_path, both, languages=languages)
        assert len(evaluate.items(wanted, bases(tmp_path)).questions) == count


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q", "answers": ["a"]}, "names no gold document"),
        ({"question": "q", "gold": ["a.md"]}, "no answers"),
        ({"question": "q"}, "neither answers nor gold"),
        ({"answers": ["a"], "gold": ["a.md"]}, "question is missing"),
    ],
)
def test_a_bad_question_is_named_with_its_line(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadData, match=rf"q\.jsonl:2: .*{said}"):
        retrieved.read(write(tmp_path / "q.jsonl", [ASKED[0], row]))


def test_a_knowledge_base_must_be_named_exist_and_hold_something(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"eval: kb: missing"):
        configured(tmp_path, kb="")
    with pytest.raises(UnknownKnowledgeBase, match="elsewhere"):
        evaluate.items(configured(tmp_path, kb="elsewhere"), bases(tmp_path))
    base = fill(tmp_path)
    for file in ("pharmacy.md", "dosing.md", "leave.md", "fire.md", "records.md"):
        base.remove(file)
    with pytest.raises(BadData, match=r"asked\.jsonl:1: knowledge base handbook holds no passages"):
        evaluate.items(configured(tmp_path), bases(tmp_path))
    base.close()


def test_no_row_is_made_of_a_question_that_will_be_judged(tmp_path: Path, base: Base) -> None:
    configured(tmp_path)
    file = tmp_path / "run.yaml"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["data"] = {"knowledge": [{"kb": NAME, "questions": "asked.jsonl", "copies": 2}]}
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BadData, match="'overlap with the evaluation': 4"):
        prepare(load(file), bases(tmp_path), lambda message: None)


@pytest.mark.real
def test_the_real_embedder_finds_what_lay_words_ask_for(tmp_path: Path, models_home: Path) -> None:
    (tmp_path / "models").symlink_to(models_home / "models")
    real = KbSettings()
    fill(tmp_path, Embedders(real, tmp_path).today()).close()
    asked = [{"question": "Until when can I get pills at the weekend?", "answers": ["13:15"],
              "gold": ["pharmacy.md"]}, *ASKED[2:]]  # fmt: skip
    found = Bases(tmp_path, real, lambda message: None)
    items = evaluate.items(configured(tmp_path, asked, top_k=2), found).questions
    assert [item.group for item in items] == ["clean", "unanswerable", "missed"]
    assert "13:15" in items[0].passages[0].text
