"""alpaca | sharegpt | messages | text | qa | feedback | rows: a source's file -> rows.

A record that is no row raises BadData with file and line. Nothing is judged here: `finetune.clean`
drops what is well-formed and bad.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from finetune import feedback
from finetune.data_settings import Format, Source
from finetune.files import Object, Record, is_text, records, text
from finetune.rows import MOST_CHARACTERS, Message, Origin, Row, first_reason
from kb.errors import BadData
from kb.words import sentences

BLOCK = 1600
"""Characters of a row of plain text at most, some 400 tokens: it must fit any `cutoff_len`."""

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}
_CALCULATOR = re.compile(r"<<[^<>]*>>")
"""GSM8K's notes for a calculator that no model here has."""

Fields = dict[str, Any]


def rows(source: Source) -> Iterator[Row]:
    """The rows of one source, in its order. Raises BadData."""
    if is_text(source.path):
        if source.format not in ("auto", "text"):
            raise BadData(f"{source.path}: is plain text, not {source.format}")
        number = 0
        for number, block in enumerate(blocks(text(source.path)), 1):
            yield _row(source, f": block {number}", {"text": block})
        if not number:
            raise BadData(f"{source.path}: holds no text")
        return
    rated: list[tuple[Record, feedback.Rated]] = []
    for record in records(source.path):
        kind = detect(record.value) if source.format == "auto" else source.format
        if kind is None:
            raise BadData(f"{record.where}: no known format has these keys: {_keys(record.value)}")
        try:
            if kind == "feedback" or feedback.is_label(record.value):
                rated.append((record, _rated(record.value)))
                continue
            for fields in _READERS[kind](record.value):
                yield _row(source, record.place, fields)
        except ValueError as error:
            raise BadData(f"{record.where}: {error}") from error
    for record, fields in feedback.pairs(rated):
        yield _row(source, record.place, fields)


def detect(value: Object) -> Format | None:
    """The format that a record's keys speak for."""
    keys = value.keys()
    for known, kind in _SIGNS:
        if known <= keys:
            return kind
    return None


def blocks(whole: str, most: int = BLOCK) -> Iterator[str]:
    """Paragraphs gathered into blocks of at most `most` characters; what is longer is cut: a
    paragraph between sentences, a sentence between words, a word between characters."""
    held = ""
    for part in _parts(whole, most):
        if held and len(held) + 1 + len(part) > most:
            yield held
            held = ""
        held = f"{held}\n{part}" if held else part
    if held:
        yield held


def _parts(whole: str, most: int) -> Iterator[str]:
    for line in whole.split("\n"):
        paragraph = line.strip()
        if len(paragraph) <= most:
            if paragraph:
                yield paragraph
            continue
        held = ""
        for start, end in sentences(paragraph):
            for piece in _pieces(paragraph[start:end], most):
                if held and len(held) + 1 + len(piece) > most:
                    yield held
                    held = ""
                held = f"{held} {piece}" if held else piece
        if held:
            yield held


def _pieces(sentence: str, most: int) -> Iterator[str]:
    """Of at most `most` characters: as many whole words as fit, or as much of one."""
    rest = sentence
    while len(rest) > most:
        at = rest.rfind(" ", 1, most + 1)
        yield rest[: at if at > 0 else most].rstrip()
        rest = rest[at if at > 0 else most :].lstrip()
    if rest:
        yield rest


def _alpaca(value: Object) -> Iterator[Fields]:
    asked = "\n".join(p for p in (_need(value, "instruction"), _may(value, "input")) if p)
    earlier = value.get("history") or []
    if not isinstance(earlier, list) or not all(
        isinstance(t, list) and len(t) == 2 for t in earlier
    ):
        raise ValueError("history: must be a list of [question, answer]")
    said = [turn for q, a in earlier for turn in (_turn("user", q), _turn("assistant", a))]
    yield _conversation(value, [*said, _turn("user", asked)], "output")


def _sharegpt(value: Object) -> Iterator[Fields]:
    said = [_tagged(turn, "from", "value") for turn in _list(value, "conversations")]
    yield _conversation(value, said, None)


def _messages(value: Object) -> Iterator[Fields]:
    said = [_tagged(turn, "role", "content") for turn in _list(value, "messages")]
    yield _conversation(value, said, None)


def _conversation(value: Object, said: list[Message], answer: str | None) -> Fields:
    """A preference's better answer, or the field `answer`, ends the conversation."""
    system = _may(value, "system")
    if system and not (said and said[0].role == "system"):
        said = [Message(role="system", content=system), *said]
    if "chosen" in value or "rejected" in value:
        said = [*said, _turn("assistant", _answer(value, "chosen"))]
        return {"messages": said, "rejected": _answer(value, "rejected")}
    return {"messages": [*said, _turn("assistant", _need(value, answer))] if answer else said}


def _qa(value: Object) -> Iterator[Fields]:
    if "passages" in value:
        raise ValueError("has passages of its own: list the file under knowledge, as `collection`")
    given = value.get("answers", value.get("answer"))
    answers = [a for a in given if isinstance(a, str)] if isinstance(given, list) else [given]
    if not answers or not isinstance(answers[0], str) or not answers[0].strip():
        raise ValueError("answers: must be one or more texts")
    said = _CALCULATOR.sub("", answers[0])
    _, marked, result = said.rpartition("#### ")
    turns = [_turn("user", _need(value, "question")), _turn("assistant", said)]
    yield {"messages": turns, "answer": result.strip() if marked else answers[0]}


def _text(value: Object) -> Iterator[Fields]:
    whole = _need(value, "text")
    if len(whole) > MOST_CHARACTERS:
        raise ValueError(f"text has {len(whole)} characters, more than {MOST_CHARACTERS}")
    for block in blocks(whole):
        yield {"text": block}


def _own(value: Object) -> Iterator[Fields]:
    yield value


_READERS: Mapping[str, Callable[[Object], Iterator[Fields]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "qa": _qa,
    "text": _text,
    "rows": _own,
}
_SIGNS: tuple[tuple[set[str], Format], ...] = (
    ({"origin"}, "rows"),
    ({"completion", "rating"}, "feedback"),
    ({"completion", "correction"}, "feedback"),
    ({"conversations"}, "sharegpt"),
    ({"messages"}, "messages"),
    ({"instruction"}, "alpaca"),
    ({"question"}, "qa"),
    ({"text"}, "text"),
)


def _rated(value: Object) -> feedback.Rated:
    """An answer that somebody judged: a feedback export, or a conversation with a `label`."""
    if feedback.is_label(value):
        key, reader = (
            ("messages", _messages) if "messages" in value else ("conversations", _sharegpt)
        )
        _list(value, key)
        (fields,) = reader(value)
        *asked, last = fields["messages"]
        return feedback.Rated(tuple(asked), last.content, "up" if value["label"] else "down")
    if "messages" in value:
        asked = [_tagged(turn, "role", "content") for turn in _list(value, "messages")]
    else:
        asked = [_turn("user", _need(value, "prompt"))]
    rating, correction = value.get("rating"), _may(value, "correction")
    if rating not in ("up", "down", None) or (rating is None and not correction):
        raise ValueError(f"rating: must be up or down, not {rating!r}")
    return feedback.Rated(tuple(asked), _need(value, "completion"), rating or "down", correction)


def _row(source: Source, place: str, fields: Fields) -> Row:
    """What the source says of all its rows is added; a row of our own keeps its origin."""
    known = {
        "role": source.role,
        "ability": source.ability,
        "origin": Origin(source=f"{source.path.name}{place}", licence=source.licence),
    }
    try:
        return Row.model_validate({**known, **fields})
    except ValidationError as error:
        raise BadData(f"{source.path}{place}: {first_reason(error)}") from error


def _need(value: Object, key: str) -> str:
    if key not in value:
        raise ValueError(f"{key} is missing")
    found = value[key]
    if not isinstance(found, str):
        raise ValueError(f"{key}: must be text")
    if not found.strip():
        raise ValueError(f"{key} is empty")
    return found.strip()


def _may(value: Object, key: str) -> str:
    return _need(value, key) if value.get(key) else ""


def _answer(value: Object, key: str) -> str:
    """`chosen` and `rejected` come as text or as a turn of their own."""
    found = value.get(key)
    if isinstance(found, dict):
        tags = ("from", "value") if "from" in found else ("role", "content")
        return _tagged(found, *tags).content
    return _need(value, key)


def _list(value: Object, key: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list) or not found:
        raise ValueError(f"{key}: must be a list of turns")
    return found


def _tagged(turn: Any, who: str, what: str) -> Message:
    if not isinstance(turn, dict) or not isinstance(turn.get(who), str):
        raise ValueError(f"a turn has no {who}")
    role = _ROLES.get(turn[who])
    if role is None:
        raise ValueError(f"{who} {turn[who]!r} is none of {', '.join(_ROLES)}")
    said = turn.get(what)
    if isinstance(said, list):  # OpenAI's parts
        parts = [p.get("text", "") if isinstance(p, dict) else p for p in said]
        said = "".join(parts) if all(isinstance(p, str) for p in parts) else None
    return _turn(role, said)


def _turn(role: str, content: Any) -> Message:
    if not isinstance(content, str):
        raise ValueError(f"what the {role} says must be text")
    return Message.model_validate({"role": role, "content": content.strip()})


def _keys(value: Object) -> str:
    return ", ".join(sorted(value)[:8]) or "none"
