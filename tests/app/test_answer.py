"""The story of an answer, told with a fake engine over a real knowledge base."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from app.answer import Answerer, Asked, Cited, Event, Finished, Text
from app.engine import FakeEngine
from app.profile import Profile
from app.settings import AppSettings, EngineSettings
from kb.catalog import Catalog
from kb.chunking import chunk
from kb.embedding import FakeEmbedder
from kb.errors import EngineDown
from kb.feed import Feed
from kb.layout import DATABASE, lexical_of
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.manifest import Serving
from kb.prompt import REFUSAL
from kb.records import Citation, Parsed
from kb.search import KnowledgeBase
from kb.settings import KbSettings
from kb.store import Store, context

HOURS = (
    "# Pharmacy hours\n\nThe pharmacy opens at 8:15 on weekdays. The pharmacy closes at 18:40.\n\n"
    "# Parcels\n\nParcels for the ward arrive on Tuesday with the blue van."
)
CHINESE = "# 药房\n\n药房每天早上八点半开门。周日药房休息。"
QUESTION = "When does the pharmacy open on weekdays?"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KnowledgeBase]:
    embedder = FakeEmbedder()
    one = Catalog(tmp_path).add("handbook", embedder.name, 0)
    writer = Store(one.folder / DATABASE)
    ledger = Ledger(writer)
    for name, text in {"hours.md": HOURS, "zh.md": CHINESE}.items():
        parsed = Parsed(text, name)
        pieces = chunk(text, 60)
        vectors = embedder.passages([f"{context(name, p.heading)}\n{p.text}" for p in pieces])
        file = ledger.changed("docs", name)
        writer.put_document(file.id, "0" * 64, parsed, pieces, vectors)
    index = LexicalIndex(lexical_of(writer), readonly=False)
    index.catch_up(Feed(writer).changes(0))
    index.close()
    writer.close()
    base = KnowledgeBase(one.folder, embedder, KbSettings())
    yield base
    base.close()


@dataclass
class Told:
    """What a client would have seen."""

    text: str
    citations: list[Citation]
    end: Finished


def tell(
    store: KnowledgeBase,
    engine: FakeEngine,
    question: str = QUESTION,
    *,
    profile: Profile | None = None,
    evidence: float = 0.0,
    history: tuple[dict[str, str], ...] = (),
) -> Told:
    profile = profile or Profile((), 2000, quotes=0)
    profile = replace(profile, evidence=evidence, unspoken=evidence)
    answerer = Answerer(engine, profile)

    async def gather() -> list[Event]:
        asked = Asked(question, history, {"max_tokens": 50}, top_k=4)
        return [event async for event in answerer.answer(asked, [store])]

    events = asyncio.run(gather())
    end = events[-1]
    assert isinstance(end, Finished)
    return Told(
        "".join(e.text for e in events if isinstance(e, Text)),
        [e.citation for e in events if isinstance(e, Cited)],
        end,
    )


def test_the_model_sees_the_passages_and_the_question(store: KnowledgeBase) -> None:
    engine = FakeEngine()
    tell(store, engine)
    ((messages, options),) = engine.asked
    assert "[1]" in messages[-1]["content"] and "opens at 8:15" in messages[-1]["content"]
    assert messages[-1]["content"].endswith(QUESTION)
    assert options == {"max_tokens": 50}


def test_the_models_sentences_are_cited(store: KnowledgeBase) -> None:
    told = tell(store, FakeEngine("The pharmacy opens at 8:15 on weekdays. Owls fly by night."))
    (citation,) = told.citations
    assert citation.filename == "hours.md" and citation.verified
    assert HOURS[citation.start : citation.end] == citation.quote
    assert told.text.startswith("The pharmacy opens at 8:15 on weekdays. [")
    assert told.end.knowledge["grounded"] and not told.end.knowledge["refused"]
    assert told.end.usage["total_tokens"] > 0


def test_without_evidence_the_server_refuses_and_the_model_is_not_asked(
    store: KnowledgeBase,
) -> None:
    engine = FakeEngine()
    told = tell(store, engine, "Who painted the Sistine Chapel?", evidence=1.0)
    assert told.text == REFUSAL["en"] and told.citations == []
    assert told.end.knowledge["refused"] and engine.asked == []
    assert tell(store, engine, "红烧肉要炖多久？", evidence=1.0).text == REFUSAL["zh"]


def test_the_passages_own_words_lead_a_small_models_answer(store: KnowledgeBase) -> None:
    told = tell(store, FakeEngine("Good day."), profile=Profile((), 160, quotes=1))
    assert told.text.startswith("“The pharmacy opens at 8:15 on weekdays.” [")
    assert told.text.endswith("\n\nGood day.")
    citation = told.citations[0]
    assert told.text[citation.index :].startswith(f"[{citation.number}]")
    assert citation.verified and HOURS[citation.start : citation.end] == citation.quote


def test_every_marker_stands_where_its_citation_says(store: KnowledgeBase) -> None:
    reply = "The pharmacy closes at 18:40. Parcels arrive on Tuesday [2]. Blue van [1]."
    told = tell(store, FakeEngine(reply), profile=Profile((), 160, quotes=3))
    assert len(told.citations) >= 4
    for citation in told.citations:
        assert told.text[citation.index :].startswith(f"[{citation.number}]")


def test_a_model_is_not_asked_in_a_language_it_does_not_write(store: KnowledgeBase) -> None:
    engine = FakeEngine()
    told = tell(store, engine, "药房几点开门？", profile=Profile(("en",), 160, quotes=2))
    assert engine.asked == []
    assert "药房每天早上八点半开门。" in told.text
    assert told.citations and told.citations[0].filename == "zh.md"


def test_a_follow_up_is_searched_with_the_question_before(store: KnowledgeBase) -> None:
    history = (
        {"role": "user", "content": "When does the pharmacy close?"},
        {"role": "assistant", "content": "At 18:40."},
    )
    engine = FakeEngine()
    told = tell(store, engine, "And when does it open?", history=history)
    assert told.end.knowledge["query"].startswith("When does the pharmacy close?")
    assert told.end.knowledge["hits"][0]["filename"] == "hours.md"
    assert [m["role"] for m in engine.asked[0][0]] == ["system", "user", "assistant", "user"]


def test_set_aside_names_the_hits_that_the_model_did_not_see(store: KnowledgeBase) -> None:
    engine = FakeEngine()
    told = tell(store, engine, profile=Profile((), 20, quotes=0))
    shown = engine.asked[0][0][-1]["content"]
    for number in range(1, len(told.end.knowledge["hits"]) + 1):
        assert (f"[{number}]" in shown) is not (number in told.end.knowledge["set_aside"])


@pytest.mark.parametrize("quotes", [0, 2])
@pytest.mark.parametrize("refuses", [True, False])
def test_what_the_model_set_aside_is_listed_and_no_part_of_the_answer(
    store: KnowledgeBase, quotes: int, refuses: bool
) -> None:
    said = "The pharmacy closes at 18:40. Parcels arrive on Tuesday [2]."
    profile = Profile((), 2000, quotes, refuses=refuses)
    bare = tell(store, FakeEngine(said), profile=profile)
    told = tell(store, FakeEngine(f"Set aside: [2] [9] [1]\n{said}"), profile=profile)
    assert told.text == bare.text and told.citations == bare.citations
    for citation in told.citations:
        assert told.text[citation.index :].startswith(f"[{citation.number}]")
    assert bare.end.knowledge["set_aside"] == []
    # All hits stood in the prompt; there is no ninth.
    assert told.end.knowledge["set_aside"] == [1, 2]


def test_set_aside_adds_what_the_model_saw_and_put_away_to_what_it_did_not_see(
    store: KnowledgeBase,
) -> None:
    small = Profile((), 20, quotes=0)
    engine = FakeEngine()
    unseen = tell(store, engine, profile=small).end.knowledge["set_aside"]
    hits = [*range(1, 1 + len(tell(store, engine, profile=small).end.knowledge["hits"]))]
    assert unseen and unseen != hits
    marks = " ".join(f"[{n}]" for n in hits)
    told = tell(store, FakeEngine(f"Set aside: {marks}\nGood day."), profile=small)
    assert told.end.knowledge["set_aside"] == hits and told.text == "Good day."
    # What it did not see it cannot put away: it is listed once, for the other reason.
    marks = " ".join(f"[{n}]" for n in unseen)
    told = tell(store, FakeEngine(f"Set aside: {marks}\nGood day."), profile=small)
    assert told.end.knowledge["set_aside"] == unseen


def test_without_knowledge_the_line_is_the_models_own() -> None:
    answerer = Answerer(FakeEngine("Set aside: [1]\nHello."), Profile((), 2000, 0))

    async def gather() -> list[Event]:
        return [e async for e in answerer.passthrough([{"role": "user", "content": "Hi"}], {})]

    said = "".join(e.text for e in asyncio.run(gather()) if isinstance(e, Text))
    assert said == "Set aside: [1]\nHello."


def test_the_reply_says_which_generation_was_read(store: KnowledgeBase) -> None:
    told = tell(store, FakeEngine())
    assert told.end.knowledge["generation"] == {store.id: 2}


def test_an_engine_that_is_down_is_an_error_not_an_empty_answer(store: KnowledgeBase) -> None:
    with pytest.raises(EngineDown):
        tell(store, FakeEngine(up=False))


def test_a_release_is_served_as_it_asks_unless_the_settings_say_otherwise() -> None:
    asks = Serving(evidence=0.05, context_tokens=700, quotes=1)
    assert Profile.of(EngineSettings(), AppSettings(), asks) == Profile(
        ("en",), 700, 1, 0.05, refuses=True
    )
    chosen = AppSettings(context_tokens=999, quotes=0, evidence=0.3)
    assert Profile.of(EngineSettings(), chosen, asks) == Profile(
        ("en",), 999, 0, 0.3, 0.3, refuses=True
    )


def test_a_release_that_refuses_by_itself_does_not_lower_the_bar_where_it_does_not_speak() -> None:
    profile = Profile.of(
        EngineSettings(), AppSettings(), Serving(evidence=0.02, context_tokens=160, quotes=0)
    )
    bar = Profile.of(EngineSettings(), AppSettings()).evidence
    assert profile.least_chance({"en"}) == 0.02
    assert profile.least_chance({"zh"}) == profile.least_chance({"en", "zh"}) == bar


def test_a_model_is_not_asked_about_a_passage_in_a_language_it_does_not_know(
    store: KnowledgeBase,
) -> None:
    engine = FakeEngine("I cannot read this.")
    told = tell(store, engine, "Which day is 药房 休息?", profile=Profile(("en",), 200, 2))
    assert engine.asked == [] and told.citations


@pytest.mark.parametrize("ending", ["", " \n"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_models_own_refusal_is_told_and_cites_nothing_where_the_retriever_is_not_sure(
    store: KnowledgeBase, language: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.evidence.BELIEVED_BELOW", 1.1)
    told = tell(store, FakeEngine(REFUSAL[language] + ending))
    assert told.text == REFUSAL[language] and told.citations == []
    assert told.end.knowledge["refused"] and not told.end.knowledge["grounded"]


def test_a_refusal_is_not_believed_where_the_retriever_is_sure(
    store: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.evidence.BELIEVED_BELOW", 0.0)
    told = tell(store, FakeEngine(REFUSAL["en"]))
    assert "The pharmacy opens at 8:15 on weekdays." in told.text and told.citations
    assert not told.end.knowledge["refused"] and told.end.knowledge["grounded"]


@pytest.mark.parametrize(("logprob", "refused"), [(-9.0, False), (0.0, True)])
def test_a_model_that_may_refuse_is_asked_how_sure_it_is_and_its_refusal_weighed(
    store: KnowledgeBase, logprob: float, refused: bool
) -> None:
    engine = FakeEngine(REFUSAL["en"], logprob=logprob)
    told = tell(store, engine, profile=Profile((), 2000, 0, refuses=True))
    assert told.end.knowledge["refused"] is refused and bool(told.citations) is not refused
    ((_, options),) = engine.asked
    assert options == {"max_tokens": 50, "logprobs": True}


def test_the_reply_says_how_likely_an_answer_was(store: KnowledgeBase) -> None:
    near, far = (tell(store, FakeEngine(), q).end.knowledge for q in (QUESTION, "Why is Mars red?"))
    assert 0 <= far["evidence"] < near["evidence"] <= 1


@pytest.mark.parametrize(
    "reply", ["The knowledge base", f"{REFUSAL['en']} The pharmacy opens at 8:15 on weekdays."]
)
def test_an_answer_that_only_begins_like_a_refusal_is_none(
    store: KnowledgeBase, reply: str
) -> None:
    told = tell(store, FakeEngine(reply))
    assert told.text.startswith(reply.rstrip(".")) and not told.end.knowledge["refused"]


def test_a_bundled_model_gets_short_prompts_and_quotes_others_do_not() -> None:
    bundled = Profile.of(EngineSettings(), AppSettings())
    assert bundled == Profile(("en",), 160, 2)
    assert Profile.of(EngineSettings(model="org/large"), AppSettings()) == Profile((), 2000, 0)
    chosen = Profile.of(EngineSettings(), AppSettings(context_tokens=999, quotes=0))
    assert chosen == Profile(("en",), 999, 0)


def test_without_knowledge_the_model_speaks_alone() -> None:
    engine = FakeEngine("Hello there.")
    answerer = Answerer(engine, Profile((), 2000, 0))

    async def gather() -> list[Event]:
        return [e async for e in answerer.passthrough([{"role": "user", "content": "Hi"}], {})]

    *texts, end = asyncio.run(gather())
    assert "".join(e.text for e in texts if isinstance(e, Text)) == "Hello there."
    assert isinstance(end, Finished) and end.knowledge == {}
