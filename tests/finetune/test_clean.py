"""What is plainly broken is dropped with its reason; what is sound stays."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from finetune.clean import SAMPLES, Dropped, clean, unseen
from finetune.data_settings import Source
from finetune.duplicates import near
from finetune.formats import rows
from finetune.language import language, of_question
from finetune.overlap import Judged, read
from finetune.perplexity import Perplexity
from finetune.rows import Message, Origin, Row
from kb.errors import BadData
from tests.finetune.shared import shared

LONG = "The committee shall publish its report within thirty days of the end of the inquiry."


def row(reply: str, asked: str = "What does the rule say?", n: int = 1) -> Row:
    said = (Message(role="user", content=asked), Message(role="assistant", content=reply))
    return Row(messages=said, origin=Origin(source=f"x.jsonl:{n}"))


def reasons(*several: Row, languages: Sequence[str] = ()) -> dict[str, int]:
    dropped = Dropped()
    clean(several, dropped, languages=languages, near_duplicate=0.8)
    return dropped.counts


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("the the the the the the the rule", "repeated words"),
        ("it is so it is so it is so it is so", "repeated words"),
        ("他说他说他说他说", "repeated words"),
        ("aaaaaaaaaaaaaaah", "repeated characters"),
        ("\n".join(f"This line is said again.\n{n}" for n in "abc"), "repeated lines"),
        ("See " + "aGVsbG8gd29ybGQ" * 6, "non-word sequences"),
        ("ok " + "$%&*()_+@#!^ " * 6, "non-word sequences"),
        ("It doesnâ€™t say.", "mojibake"),
        ("cafÃ© and more", "mojibake"),
        ("锟斤拷 is what remains", "mojibake"),
        ("合同应当在三十日内签订。".encode().decode("gb18030", "replace"), "mojibake"),
        ("合同应当在三十日内签订。".encode().decode("cp1252", "ignore"), "mojibake"),
        ("0 mg 0 mg 0 mg 0 mg 0 mg", "repeated words"),
        ("a\x08b", "control characters"),
        ("What does the rule say?", "degenerate"),
        ("...", "degenerate"),
        ("Yes.<|im_end|>", "template fragments"),
        ("### Response: yes", "template fragments"),
        ("I am {{name}}.", "template fragments"),
        ("As an AI language model, I cannot.", "another assistant's manner"),
        ("作为一个人工智能，我不能。", "another assistant's manner"),
    ],
)
def test_noise_is_dropped_with_its_reason(reply: str, reason: str) -> None:
    assert reasons(row(reply), row(LONG)) == {reason: 1}


@pytest.mark.parametrize(
    "reply",
    [
        LONG,
        "哈哈哈哈，这条规定是说六个月。",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "See https://example.org/a/very/long/path/with/many/parts/and/more/of/them/still/to/come",
        "No, no, no.",
        "2 + 2 + 2 = 6, and 6 + 6 = 12, so 12 days.",
        "- one\n- two\n- three",
        "Dosis: 5 mg täglich, größer als früher.",
        "An AI is what the article is about.",
        "5 mg, 10 mg, 20 mg, 40 mg, 60 mg, 80 mg, 100 mg",
        "See Article 1, Article 2, Article 3, Article 4, Article 5, Article 6 and Article 7.",
        "0 0 0 0 0 0 0 0",
        "It lies in /usr/share/doc/python3/examples/scripts/tools/unittestgui/of/many/parts.",
        "The file's SHA-256 is " + "0123456789abcdef" * 4 + ".",
        "The official OpenAI client works unchanged.",
        "他说，合同应当在三十日内签订，由双方盖章；逾期无效。",
        "Größe, Übergänge, naïve façades: £5 – “quoted”… ½ °C",
    ],
)
def test_what_is_sound_stays(reply: str) -> None:
    assert reasons(row(reply)) == {}


def test_a_page_about_templates_may_be_asked_about_and_a_bad_answer_rejected() -> None:
    asked = "References:\n\n[1] Write {{ title }}.\nUSER: admin\n\nQuestion: What is written?"
    worse = row(LONG).model_copy(update={"rejected": "the " * 9})
    assert reasons(row("The title. [1]", asked), worse) == {}
    assert reasons(row(LONG).model_copy(update={"rejected": "a\x08b"})) == {"control characters": 1}


def test_a_row_said_twice_stays_once() -> None:
    kept = clean([row(LONG), row(f"{LONG} "), row(LONG.upper())], dropped := Dropped())
    assert len(kept) == 1 and dropped.counts == {"exact duplicates": 2}


def test_a_row_said_nearly_twice_stays_once_and_others_stay() -> None:
    text = " ".join(f"word{n}" for n in range(60))
    other = " ".join(f"other{n}" for n in range(60))
    assert near([row(text), row(f"{text} more"), row(other)], 0.8) == [1]
    assert near([row(text), row(f"{text} more"), row(other)], 1.0) == []


def test_another_language_is_dropped_and_an_unknown_one_stays() -> None:
    german = row("Der Ausschuss hat den Bericht nicht mit der Frist veröffentlicht.", "Was ist es?")
    chinese = row("委员会应当在三十日内公布报告。", "何时公布？")
    assert reasons(row(LONG), german, chinese, row("5 mg", "?"), languages=["en"]) == {
        "wrong language": 2
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LONG, "en"),
        ("委员会应当在三十日内公布报告。", "zh"),
        ("La commission doit publier son rapport dans les trente jours de la fin.", "fr"),
        ("La comisión debe publicar su informe en los treinta días del fin de la misma.", "es"),
        ("委員会は報告を公表しなければならない。", "ja"),
        ("Комиссия публикует доклад.", "ru"),
        ("Paris, Berlin", ""),
        ("12 + 5", ""),
    ],
)
def test_the_language_of_a_text_is_told_or_left_open(text: str, expected: str) -> None:
    assert language(text) == expected


@pytest.mark.parametrize(
    ("asked", "beside", "expected"),
    [
        ("Wann öffnet die Apotheke?", "Die Apotheke ist von acht bis zehn auf.", "de"),
        ("Zelvorin dose?", "The dose for an adult is 8 mg in the morning.", "en"),
        ("何时公布？", "The committee publishes it.", "zh"),
        ("When is it published?", "委员会应当在三十日内公布报告，并且说明理由。", "en"),
        ("8 mg?", "", "en"),
    ],
)
def test_a_question_has_the_language_of_what_answers_it(
    asked: str, beside: str, expected: str
) -> None:
    assert of_question(asked, beside) == expected


def test_samples_of_the_dropped_are_few_and_say_where_they_were() -> None:
    dropped = Dropped()
    clean([row("...", n=n) for n in range(9)], dropped)
    told = dropped.as_json()["degenerate"]
    assert told["count"] == 9 and len(told["samples"]) == SAMPLES
    assert told["samples"][0] == "x.jsonl:0: ..."


PASSAGE = (
    "Mount Varn was first climbed in the dry summer of 1923 by two sisters who carried their own"
    " ropes. They left a tin box on its top, which is kept in the town hall today."
)


def test_a_row_that_shows_a_judged_passage_is_dropped_even_in_part() -> None:
    judged = Judged([PASSAGE])
    part = "first climbed in the dry summer of 1923 by two sisters who carried their own ropes"
    assert judged.overlaps(row(f"It was {part}."))
    assert judged.overlaps(row("Nothing.", f"References:\n\n[1] {PASSAGE}\n\nQuestion: When?"))
    assert not judged.overlaps(row("It was first climbed in the dry summer of 1924 by brothers."))


def test_a_judged_question_is_dropped_and_a_like_one_stays() -> None:
    judged = Judged(["Who climbed Mount Varn first?", "Who was he?"])
    assert judged.overlaps(row("Two sisters.", "Question: who climbed Mount Varn first?"))
    assert not judged.overlaps(row("Two sisters.", "Who climbed Mount Varn last?"))
    assert not judged.overlaps(row("A poet.", "Who was he?"))


def test_chinese_overlap_is_found_by_characters() -> None:
    judged = Judged(["委员会应当在调查结束之日起三十日内公布报告，并且说明理由和依据。"])
    assert judged.overlaps(row("委员会应当在调查结束之日起三十日内公布报告，没有别的。"))
    assert not judged.overlaps(row("委员会应当在三十日内公布。"))


def test_gold_passages_count_and_other_passages_of_an_item_do_not(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    other = PASSAGE.replace("Varn", "Elm").replace("1923", "1950").replace("sisters", "monks")
    file.write_text(
        '{"question": "When was Mount Varn first climbed?", "gold": ["a"], "passages":'
        f' [{{"id": "a", "text": "{PASSAGE}"}}, {{"id": "b", "text": "Of it: {other[40:]}"}}]}}',
        encoding="utf-8",
    )
    judged = read([file])
    dropped = Dropped()
    assert (
        unseen([row(PASSAGE), row("x", "When was Mount Varn first climbed?")], judged, dropped)
        == []
    )
    assert dropped.counts == {"overlap with the evaluation": 2}
    assert not judged.overlaps(row("Of it: monks who came from afar and left no box at all."))


def test_a_question_that_is_anybodys_is_judged_with_its_choices_only(tmp_path: Path) -> None:
    file = tmp_path / "choice.jsonl"
    choices = ["A contract needs a seal", "A will needs two witnesses", "A lease needs nothing"]
    asked = [
        {"question": q, "choices": choices} for q in ("Which of these is wrong?", "哪项是错的")
    ]
    file.write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    judged = read([file])
    assert not judged.overlaps(row("The second.", "Which of these is wrong? The first or second?"))
    for said in (
        " / ".join(choices),
        "\n".join(f"{n}. {c}" for n, c in zip("ABC", choices, strict=True)),
    ):
        assert judged.overlaps(row("The second.", f"Which of these is wrong?\n{said}"))


def test_of_a_judged_conversation_what_was_asked_counts(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    said = [("system", "You are kind."), ("user", f"Is it so that {LONG}"), ("assistant", PASSAGE)]
    messages = [{"role": role, "content": content} for role, content in said]
    file.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    judged = read([file])
    assert judged.overlaps(row("Yes.", LONG)) and not judged.overlaps(row(PASSAGE))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"messages": ["a"]}', "messages: must be a list of objects"),
        ('{"messages": 5}', "messages: must be a list of objects"),
        ('{"question": "Why is it so?", "passages": {"a": "b"}}', "passages: must be a list"),
    ],
)
def test_an_evaluation_file_of_another_shape_is_refused_with_its_line(
    tmp_path: Path, line: str, said: str
) -> None:
    file = tmp_path / "judged.jsonl"
    file.write_text(f'{{"question": "Who?"}}\n{line}', encoding="utf-8")
    with pytest.raises(BadData, match=rf"judged\.jsonl:2: {said}"):
        read([file])


def test_one_gold_passage_may_be_named_without_a_list(tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"
    file.write_text(
        f'{{"question": "Why?", "gold": "ab", "passages": [{{"id": "ab", "text": "{PASSAGE}"}}]}}',
        encoding="utf-8",
    )
    assert read([file]).overlaps(row(PASSAGE))


def test_the_gold_paragraphs_of_grounding_mix_are_found_in_xquad() -> None:
    judged = read([shared("grounding_mix/items.jsonl")])
    made = list(rows(Source(path=shared("xquad_en_zh/en-en/corpus.jsonl"), format="text")))
    found = {r.origin.source for r in made if judged.overlaps(r)}
    assert len({r.origin.source for r in made}) == 240
    assert len(found) in (134, 135, 136)  # data/README.md: 106 paragraphs are on no item


class Told(Perplexity):
    """Values as told, without a model."""

    def measure(self, rows: Sequence[Row]) -> list[float | None]:
        return [float(r.reply) if r.reply != "none" else None for r in rows]


def test_what_the_base_model_finds_strange_is_an_outlier(tmp_path: Path) -> None:
    values = [*["2.0", "2.1"] * 10, "9.5", "none"]
    assert Told("m", 3.0, tmp_path)([row(v) for v in values]) == [20]
    assert Told("m", 3.0, tmp_path)([row(v) for v in values[:20]]) == []


def test_perplexity_is_the_same_in_a_batch_and_alone(tiny_model: Path) -> None:
    judge = Perplexity(str(tiny_model), 3.0, tiny_model)
    several = [row("Short."), row(LONG), row("Of middle length, this one.")]
    alone = [judge.measure([one])[0] for one in several]
    assert judge.measure(several) == pytest.approx(alone, rel=1e-4)  # padding changes nothing
    assert all(value is not None and 3 < value < 9 for value in alone)  # ln(300) is 5.7
