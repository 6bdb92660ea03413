"""Rendered rows under the glass: ends trained once, the prompt a prefix, the engine of one mind.

Knows rows and tokens; nothing of data quality or rules.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from finetune.problems import Problem
from finetune.render import IGNORED, Rendered, Renderer
from finetune.rows import Message, Row
from kb.errors import EngineDown

NAMED = 3
"""Rows named for one kind of problem; the others are counted."""


class Tokenize(Protocol):
    """What the engine makes of messages: token ids. Raises EngineDown."""

    def __call__(self, messages: Sequence[Message], *, ask: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a rendered row that is trained, or masked."""

    text: str
    trained: bool


class HttpTokenize:
    """vLLM's POST /tokenize."""

    def __init__(
        self, url: str, model: str = "", transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = f"{url.rstrip('/').removesuffix('/v1')}/tokenize"
        self._model = model
        self._transport = transport

    def __call__(self, messages: Sequence[Message], *, ask: bool) -> list[int]:
        body: dict[str, Any] = {
            "messages": [m.model_dump() for m in messages],
            "add_generation_prompt": ask,
        }
        if self._model:
            body["model"] = self._model
        try:
            # A connection a call: rows are few, and none is left open.
            with httpx.Client(timeout=60, trust_env=False, transport=self._transport) as client:
                reply = client.post(self._url, json=body)
            reply.raise_for_status()
            return [int(token) for token in reply.json()["tokens"]]
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise EngineDown(f"the engine did not tokenize: {error}") from error


def segments(rendered: Rendered, renderer: Renderer) -> list[Segment]:
    """The row's text, cut where training begins and ends."""
    runs: list[tuple[bool, list[int]]] = []
    for token, label in zip(rendered.input_ids, rendered.labels, strict=True):
        if not runs or runs[-1][0] != (label != IGNORED):
            runs.append((label != IGNORED, []))
        runs[-1][1].append(token)
    return [Segment(str(renderer.tokenizer.decode(ids)), trained) for trained, ids in runs]


def ends(rows: Sequence[Row], rendered: Sequence[Rendered], stops: set[int]) -> Iterator[Problem]:
    """Each answer's end token must be trained, once. Otherwise the model never stops, or stops in
    the middle."""
    wrong, untrained = [], []
    for row, one in zip(rows, rendered, strict=True):
        if not row.messages:
            continue
        runs = _trained_runs(one)
        held = sum(label in stops for label in one.labels)
        if held != len(runs) or any(run[-1] not in stops for run in runs):
            wrong.append(row.origin.source)
        elif len(runs) < sum(m.role == "assistant" for m in row.messages):
            untrained.append(row.origin.source)
    if wrong:
        text = f"the end of an answer is not trained exactly once in {_named(wrong)}"
        yield Problem("serious", "end tokens", text)
    if untrained:
        text = f"the template hides earlier answers, which are not trained, in {_named(untrained)}"
        yield Problem("note", "end tokens", text)


def prefixes(
    rows: Sequence[Row], rendered: Sequence[Rendered], renderer: Renderer
) -> Iterator[Problem]:
    """The tokens of the prompt must begin the tokens of the whole: at serving the model goes on
    from exactly them."""
    broken = [
        row.origin.source
        for row, one in zip(rows, rendered, strict=True)
        if row.messages
        and tuple(prompt := _ids(renderer, row.prompt, ask=True)) != one.input_ids[: len(prompt)]
    ]
    if broken:
        text = f"the prompt's tokens are not the beginning of the row's in {_named(broken)}"
        yield Problem("serious", "prompt boundary", text)


def engine(rows: Sequence[Row], renderer: Renderer, tokenize: Tokenize) -> Iterator[Problem]:
    """The engine must make the same tokens of the same messages, of prompts and of whole rows."""
    for row in rows:
        for messages, ask in ((row.prompt, True), (row.messages, False)):
            ours, theirs = _ids(renderer, messages, ask=ask), tokenize(messages, ask=ask)
            if ours != theirs:
                at = next(
                    (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                    min(len(ours), len(theirs)),
                )
                here, there = (renderer.tokenizer.decode(x[at : at + 5]) for x in (ours, theirs))
                text = f"{row.origin.source}: at token {at} training has {here!r}, the engine"
                yield Problem("serious", "engine", f"{text} {there!r}: another chat template?")
                return


def _ids(renderer: Renderer, messages: Sequence[Message], *, ask: bool) -> list[int]:
    text = renderer.text(messages, ask=ask)
    ids: list[int] = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _trained_runs(rendered: Rendered) -> list[list[int]]:
    runs: list[list[int]] = []
    before = IGNORED
    for label in rendered.labels:
        if label != IGNORED:
            if before == IGNORED:
                runs.append([])
            runs[-1].append(label)
        before = label
    return runs


def _named(sources: Sequence[str]) -> str:
    rest = len(sources) - NAMED
    return ", ".join(sources[:NAMED]) + (f" and {rest} more rows" if rest > 0 else "")
