"""question -> stream of events: the story of an answer.

Retrieve, refuse without evidence, lead with the passages' own words where the model is weak, let
the model speak from the references, check every citation. Knows nothing of HTTP.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from app.citations import Piece
from app.engine import Delta, Engine, Message
from app.evidence import strongest
from app.profile import Profile
from app.reply import ALONE, Reply, quoted
from app.rewrite import standalone
from kb import prompt
from kb.records import Citation, Found
from kb.search import KnowledgeBase, merge
from kb.words import is_chinese


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: the last user message, the turns before it, the engine's sampling options."""

    question: str
    history: tuple[dict[str, str], ...]
    options: Mapping[str, Any]
    top_k: int
    min_generation: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    citation: Citation


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: why (`stop` or `length`), token counts, interface.md's `knowledge` object, and what
    the model was asked, or would have been."""

    reason: str
    usage: Mapping[str, int]
    knowledge: dict[str, Any]
    prompt: Sequence[Message] = ()


Event = Text | Cited | Finished
NOTHING_USED: Mapping[str, int] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class Answerer:
    """Answers questions from knowledge bases with one engine, as its profile says."""

    def __init__(self, engine: Engine, profile: Profile) -> None:
        self._engine = engine
        self._profile = profile

    async def answer(
        self, asked: Asked, stores: Sequence[KnowledgeBase]
    ) -> AsyncGenerator[Event, None]:
        """Text and citations, then one Finished. Raises NotYet, EngineDown, BadData."""
        earlier = [m["content"] for m in asked.history if m["role"] == "user"]
        query = standalone(asked.question, earlier)
        found, generations = await run_in_threadpool(_retrieve, query, asked, stores)
        likely, best = strongest(query, found)
        told = _Told(query, found, generations, self._engine.model, likely)
        language = _language(asked.question)
        languages = {language, _language(best.chunk.text if best else asked.question)}
        excerpts = prompt.excerpts(query, found.hits, self._profile.context_tokens)
        messages = prompt.messages(asked.question, excerpts, asked.history)
        if likely < self._profile.least_chance(languages):
            yield Text(prompt.REFUSAL[language])
            yield Finished("stop", NOTHING_USED, told.knowledge(refused=True), messages)
            return
        used = {excerpt.number for excerpt in excerpts}
        told.set_aside = set(range(1, len(found.hits) + 1)) - used

        if not self._profile.speaks(languages):
            for piece in quoted(query, found.hits, ALONE):
                yield told.note(_event(piece))
            yield Finished("stop", NOTHING_USED, told.knowledge(), messages)
            return
        reply = Reply(
            query,
            found.hits,
            self._profile.quotes,
            refuses=self._profile.refuses,
            likely=likely,
        )
        for piece in reply.begin():
            yield told.note(_event(piece))
        last = Delta()
        # How sure it is decides whether its refusal stands.
        options = {**asked.options, "logprobs": True} if self._profile.refuses else asked.options
        async with aclosing(self._engine.stream(messages, options)) as deltas:
            async for last in deltas:
                for piece in reply.feed(last.text, last.logprob):
                    yield told.note(_event(piece))
        for piece in reply.finish():
            yield told.note(_event(piece))
        told.set_aside |= used.intersection(reply.set_aside)
        knowledge = told.knowledge(refused=reply.refused)
        usage = last.usage or NOTHING_USED
        yield Finished(last.finish_reason or "stop", usage, knowledge, messages)

    async def passthrough(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Event, None]:
        """The model alone, without knowledge: the messages go to the engine as they are."""
        last = Delta()
        async with aclosing(self._engine.stream(messages, options)) as deltas:
            async for last in deltas:
                if last.text:
                    yield Text(last.text)
        usage = last.usage or NOTHING_USED
        yield Finished(last.finish_reason or "stop", usage, {}, messages)


class _Told:
    """What has been said so far, for the `knowledge` object at the end."""

    def __init__(
        self,
        query: str,
        found: Found,
        generations: dict[str, int],
        release: str,
        evidence: float,
    ) -> None:
        self._query = query
        self._found = found
        self._generations = generations
        self._release = release
        self._evidence = evidence
        self._grounded = False
        self.set_aside: set[int] = set()

    def note(self, event: Event) -> Event:
        self._grounded |= isinstance(event, Cited) and event.citation.verified
        return event

    def knowledge(self, *, refused: bool = False) -> dict[str, Any]:
        return {
            "grounded": self._grounded,
            "refused": refused,
            "release": self._release,
            "generation": self._generations,
            "query": self._query,
            "evidence": round(self._evidence, 4),
            "keywords": list(self._found.keywords[:8]),
            "set_aside": sorted(self.set_aside),
            "hits": [
                {
                    "number": number,
                    "file_id": hit.file_id,
                    "filename": hit.filename,
                    "page": hit.chunk.page,
                    "score": round(hit.score, 4),
                    "text": hit.chunk.text,
                }
                for number, hit in enumerate(self._found.hits, 1)
            ],
        }


def _retrieve(
    query: str, asked: Asked, stores: Sequence[KnowledgeBase]
) -> tuple[Found, dict[str, int]]:
    founds = [
        store.search(query, asked.top_k, min_generation=asked.min_generation) for store in stores
    ]
    generations = {s.id: f.generation for s, f in zip(stores, founds, strict=True)}
    return merge(founds, asked.top_k), generations


def _language(text: str) -> str:
    return "zh" if is_chinese(text) else "en"


def _event(piece: Piece) -> Event:
    return Text(piece) if isinstance(piece, str) else Cited(piece)
