"""Rows show what serving would show, answer what stands there, refuse where nothing does."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finetune import answers
from finetune.chat import FakeChat
from finetune.clean import Dropped
from finetune.grounding import SEARCHED, Style, rows, stale
from finetune.made import by_engine, by_rules
from finetune.questions import Question
from finetune.rows import Row
from kb import prompt
from kb.judging import judge
from kb.search import KnowledgeBase
from tests.finetune.handbook import NAME, SETTINGS, TEXTS, fill
from tests.kb.bases import Base, hit

ASKED = (
    Question("When does the pharmacy close on Saturdays?", ("13:15",), ("pharmacy.md",), "q:1"),
    Question("How much Zelvorin does an adult take?", ("8 mg",), ("dosing.md",), "q:2"),
    Question("How many days of leave does a nurse have?", ("27 days",), ("leave.md",), "q:3"),
    Question("How long are patient records kept?", ("30 years",), (), "q:4"),
)
STYLE = Style(context_tokens=160, copies=4, distractors=3, refusals=0.3, licence="CC0", seed=1)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Base]:
    made = fill(tmp_path)
    yield made
    made.close()


@pytest.fixture
def kb(base: Base) -> KnowledgeBase:
    return base.reader(SETTINGS)


def make(kb: KnowledgeBase, style: Style = STYLE, asked: tuple[Question, ...] = ASKED) -> list[Row]:
    return list(rows(kb, NAME, asked, style, Dropped()))


def shown(row: Row) -> dict[int, str]:
    """Number -> text of the references in a row's prompt."""
    references = row.messages[1].content.split("\n\nQuestion: ")[0]
    return {int(n): t for n, t in re.findall(r"^\[(\d+)\] (.*(?:\n(?!\[).*)*)", references, re.M)}


def test_an_answer_is_a_sentence_of_the_passage_that_it_cites(kb: KnowledgeBase) -> None:
    made = [row for row in make(kb) if row.ability == "grounding"]
    assert len(made) >= 8
    for row in made:
        said, number = re.fullmatch(r"(.+) \[(\d+)\]", row.reply, re.S).groups()  # type: ignore[union-attr]
        assert said in shown(row)[int(number)]
        assert row.answer is not None and row.answer in said


def test_a_row_without_its_gold_passage_refuses_in_the_houses_words(kb: KnowledgeBase) -> None:
    made = [row for row in make(kb) if row.ability == "refusal"]
    assert made
    for row in made:
        asked = next(q for q in ASKED if q.text in row.messages[1].content)
        assert row.reply == row.answer == prompt.REFUSAL["en"]
        assert not any(a in text for text in shown(row).values() for a in asked.answers)


def test_the_prompt_is_the_servers_own(kb: KnowledgeBase) -> None:
    """The whole row: same hits, same numbers, same excerpts, same messages."""
    question = ASKED[0]
    found = kb.search(question.text, SEARCHED)
    for row in make(kb, asked=(question,)):
        chunks = {h.chunk.id: h for h in found.hits}
        shown_hits = [chunks[i] for i in row.origin.chunks]
        for number, text in shown(row).items():
            assert any(text in h.chunk.text for h in shown_hits), number
        said = prompt.messages(question.text, [prompt.Excerpt(n, t) for n, t in shown(row).items()])
        assert [m.model_dump() for m in row.messages[:-1]] == said


def test_little_room_shows_sentences_and_what_lost_its_answer_is_counted(kb: KnowledgeBase) -> None:
    dropped = Dropped()
    asked = (*ASKED, Question("When does Mill Lane close?", ("18:40",), ("pharmacy.md",), "q:5"))
    made = list(rows(kb, NAME, asked, replace(STYLE, context_tokens=20, refusals=0.0), dropped))
    assert made and all(sum(map(len, shown(row).values())) < 140 for row in made)
    # The sentence that answers does not name the place, the others do.
    assert set(dropped.counts) == {"answer beyond the prompt's room"}
    assert not [row for row in made if "q:5" in row.origin.source]


def test_distractors_are_the_retrievers_own_hits_and_never_hold_the_answer(
    kb: KnowledgeBase,
) -> None:
    twin = Question("When does the pharmacy close?", ("closes",), ("pharmacy.md",), "q:9")
    for row in make(kb, asked=(*ASKED, twin)):
        if row.ability == "grounding":
            number = int(row.reply.rpartition("[")[2].rstrip("]"))
            others = [text for n, text in shown(row).items() if n != number]
            assert not any(answers.holds(text, [row.answer or ""]) for text in others)


def test_copies_of_a_question_differ_and_gold_moves_about(kb: KnowledgeBase) -> None:
    made = make(kb, replace(STYLE, copies=4, refusals=0.0))
    assert len({row.messages[1].content for row in made}) == len(made)
    assert len({row.reply.rpartition("[")[2] for row in make(kb, replace(STYLE, copies=20))}) > 1


def test_the_same_seed_gives_the_same_rows_whatever_else_is_asked(kb: KnowledgeBase) -> None:
    assert make(kb) == make(kb)
    assert make(kb, asked=ASKED[2:]) == [
        r for r in make(kb) if "q:3" in r.origin.source or "q:4" in r.origin.source
    ]
    assert make(kb) != make(kb, replace(STYLE, seed=2))


def test_the_share_of_refusals_is_kept(kb: KnowledgeBase) -> None:
    assert not [r for r in make(kb, replace(STYLE, refusals=0.0)) if r.ability == "refusal"]
    assert all(r.ability == "refusal" for r in make(kb, replace(STYLE, refusals=1.0)))
    made = make(kb, replace(STYLE, copies=20, distractors=20, refusals=0.5))
    assert 0.3 < sum(r.ability == "refusal" for r in made) / len(made) < 0.95


def test_a_row_knows_its_passages_document_generation_and_licence(
    kb: KnowledgeBase, base: Base
) -> None:
    for row in make(kb):
        assert row.origin.source.startswith("kb:handbook q:")
        assert row.origin.generation == base.store.generation() and row.origin.licence == "CC0"
        assert row.origin.gold.startswith("sha-") and set(row.origin.documents)
        assert (row.origin.gold in row.origin.documents) == (row.ability == "grounding")


def test_an_edited_document_marks_its_rows_as_stale(kb: KnowledgeBase, base: Base) -> None:
    made = make(kb)
    assert stale(made, kb.store) == []
    base.remove("dosing.md")
    old = stale(made, kb.store)
    assert old == [row for row in made if "sha-dosing.md" in row.origin.documents] and old


def test_set_aside_names_the_references_that_the_answer_does_not_use(kb: KnowledgeBase) -> None:
    made = make(kb, replace(STYLE, set_aside=True))
    assert any(row.reply.startswith("Set aside: none\n") for row in made)
    for row in made:
        numbers, answer = prompt.split_aside(row.reply)
        assert judge(row.reply, [row.answer or ""], [], 0).refused is (row.ability == "refusal")
        first, newline, rest = row.reply.partition("\n")
        # The first word tells an answer from a refusal: the line stands before every answer (014).
        assert bool(newline) is (row.ability == "grounding")
        if not newline:
            continue
        aside = {int(n) for n in re.findall(r"\[(\d+)\]", first)}
        # What is taught is what serving takes off, and nothing more.
        assert (sorted(aside), rest) == (numbers, answer)
        used = {int(n) for n in re.findall(r"\[(\d+)\]", rest)}
        assert first.startswith("Set aside: ") and aside | used == set(shown(row))
        assert not aside & used and bool(aside) is not first.endswith("none")


def test_rows_of_a_question_differ_and_what_is_shown_does_not_tell_whether_there_is_an_answer(
    base: Base,
) -> None:
    """There are few ways to show one reference: drawn before that is known, most of them refuse."""
    for n in range(12):
        text = f"Ward {n} closes late. Its nurse notes how long a dose and records are kept."
        base.put(f"ward-{n}.md", text)
    for n in range(2):
        base.put(f"copy-{n}.md", "On Saturdays a nurse of the pharmacy takes leave.")
    kb = base.reader(SETTINGS)
    style = replace(STYLE, copies=20, distractors=2, context_tokens=60, refusals=0.4)
    refuses: dict[int, list[bool]] = {}
    numbers: dict[str, set[int]] = {"grounding": set(), "refusal": set()}
    for seed in range(25):
        made = make(kb, replace(style, seed=seed))
        assert len({row.messages for row in made}) == len(made)
        for row in made:
            refuses.setdefault(len(shown(row)), []).append(row.ability == "refusal")
            numbers[row.ability] |= set(shown(row))
    shares = {references: sum(each) / len(each) for references, each in refuses.items()}
    assert shares.keys() == {1, 2, 3} and numbers["grounding"] == numbers["refusal"]
    assert max(shares.values()) - min(shares.values()) < 0.1, shares


@pytest.mark.parametrize("refusals", [0.0, 0.5, 1.0])
def test_without_distractors_one_reference_is_shown_and_refused_as_often_as_asked(
    kb: KnowledgeBase, refusals: float
) -> None:
    style = replace(STYLE, copies=1, distractors=0, refusals=refusals)
    made = [row for seed in range(50) for row in make(kb, replace(style, seed=seed))]
    assert {len(shown(row)) for row in made} == {1}
    share = sum(row.ability == "refusal" for row in made) / len(made)
    assert share == pytest.approx(refusals, abs=0.1)


def test_what_cannot_be_said_for_certain_is_no_row_and_is_counted(kb: KnowledgeBase) -> None:
    lost = Question("Where is the harbour?", ("pier 9",), ("harbour.md",), "q:1")
    unsaid = Question(
        "When does the pharmacy open on Sundays?", ("never",), ("pharmacy.md",), "q:2"
    )
    dropped = Dropped()
    assert list(rows(kb, NAME, [lost, unsaid], STYLE, dropped)) == []
    assert dropped.counts == {"gold not retrieved": 1, "no sentence answers": 1}


def test_a_chinese_question_is_refused_in_chinese(base: Base) -> None:
    base.put("zh.md", "药房每天早上八点半开门。周日药房休息。")
    asked = Question("护士每年有多少天假期？", ("二十七天",), ("zh2.md",), "q:1")
    base.put("zh2.md", "护士每年有二十七天假期。")
    made = make(base.reader(SETTINGS), replace(STYLE, refusals=0.5, copies=8), (asked,))
    assert {r.reply for r in made if r.ability == "refusal"} == {prompt.REFUSAL["zh"]}
    assert any(r.reply.startswith("护士每年有二十七天假期。 [") for r in made)


def test_a_german_question_makes_german_rows(base: Base) -> None:
    base.put("de.md", "Die Apotheke ist von neun bis zehn auf. Das gilt nicht am Sonntag.")
    asked = Question("Wann ist die Apotheke auf?", ("neun bis zehn",), ("de.md",), "q:1")
    made = make(base.reader(SETTINGS), replace(STYLE, refusals=0.5, copies=4), (asked,))
    assert {row.ability for row in made} == {"grounding", "refusal"}
    assert {row.language for row in made} == {"de"}


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("There were 1308 of them.", "308", False),
        ("There were 308 of them.", "308", True),
        ("It is the Old Town.", "old town.", True),
        ("共有308人参加。", "308", True),
        ("A catalogue of cats.", "cat", False),
        ("Anything.", "", False),
    ],
)
def test_an_answer_stands_in_a_text_only_as_words_of_its_own(
    text: str, answer: str, expected: bool
) -> None:
    assert answers.holds(text, [answer]) is expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("- A point of a list.", "A point of a list. [2]"),
        ("No full stop", "No full stop. [2]"),
        ("一个句子", "一个句子。 [2]"),
        ("Two\n  lines.", "Two lines. [2]"),
        ("He said “yes.”", "He said “yes.” [2]"),
    ],
)
def test_an_answer_reads_as_one_sentence_with_its_marker(sentence: str, expected: str) -> None:
    assert answers.says(sentence, 2) == expected


def test_a_cue_says_which_sentence_answers() -> None:
    cues = {"inherited": "{title} is inherited in", ".": "(?!)"}
    passage = hit("This form is inherited in a dominant way. Ataxia is inherited in families.")
    titled = replace(passage, title="Ataxia")
    asked = "Is ataxia inherited?"
    assert answers.sentence_of(titled, asked, (), cues) == "Ataxia is inherited in families."
    assert answers.sentence_of(titled, "What is it?", (), cues) is None


def test_a_gold_passage_of_one_sentence_answers_and_one_of_two_leaves_it_open() -> None:
    assert (
        answers.sentence_of(hit("One sentence is all."), "What?", (), {}) == "One sentence is all."
    )
    assert answers.sentence_of(hit("One is here. Two are here."), "What?", (), {}) is None


@pytest.mark.parametrize(
    "text",
    ['He said, "Before it began. I was there."', "It is (as told. It is over).", "Is it so?"],
)
def test_half_a_quotation_or_a_question_is_no_answer(text: str) -> None:
    assert answers.sentence_of(hit(text), "When did it begin?", ("it",), {}) is None


def test_rules_ask_only_what_their_sentence_answers(kb: KnowledgeBase) -> None:
    made = {q.text: q for q in by_rules(kb)}
    assert "When was the Records Office founded?" in made
    for question in made.values():
        assert any(question.sentence in text for text in TEXTS.values())
        assert all(a in question.sentence for a in question.answers)
    assert {r.ability for r in make(kb, asked=tuple(made.values()))} == {"grounding", "refusal"}


def test_a_question_that_fits_another_passage_too_is_dropped(base: Base) -> None:
    for n in range(2):
        base.put(f"effects{n}.md", f"Common side effects of Drug X include sleep and thirst {n}.")
    kb, dropped = base.reader(SETTINGS), Dropped()
    asked = [q for q in by_rules(kb) if "side effects" in q.text]
    assert len(asked) == 2 and list(rows(kb, NAME, asked, STYLE, dropped)) == []
    assert dropped.counts == {"question that fits other passages too": 2}


def engine(asks: str, answers_: str) -> FakeChat:
    return FakeChat(lambda said: answers_ if said.startswith("References:") else asks)


@pytest.mark.parametrize(
    ("asks", "answers_", "kept"),
    [
        ("When did the Records Office begin?", "The Records Office was founded in 1987.", True),
        ("When did the Records Office begin?", "It was in 1951, by decree.", False),
        ("When did the Records Office begin?", "", False),
        ("The Records Office", "The Records Office was founded in 1987.", False),
        ("Why are whales large?", "The Records Office was founded in 1987.", False),
    ],
)
def test_an_engines_question_stays_only_if_the_passage_answers_it(
    kb: KnowledgeBase, asks: str, answers_: str, kept: bool
) -> None:
    dropped = Dropped()
    made = list(by_engine(kb, engine(asks, answers_), None, 0, dropped))
    assert len(made) == kept and sum(dropped.counts.values()) == len(TEXTS) - kept
    if kept:
        assert made[0].sentence == "The Records Office was founded in 1987."
        assert make(kb, asked=tuple(made))
