"""Rows that hold what the model will be judged on: found by shared runs of words.

Of an evaluation file count its questions, and the passages it calls gold (all that it shows, if it
knows no gold); its answers alone, a name or a year, may stand anywhere. A run of `RUN` words (a
Chinese character counts as one, and `RUN_ZH` of them are asked for) is more than chance: GPT-3's
decontamination took 13. Knows nothing of how rows were made.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune import files
from finetune.noise import whole
from finetune.rows import Row
from finetune.settings import TrainSettings
from kb.errors import BadData
from kb.words import CJK

RUN = 12
RUN_ZH = 20
_SHORT, _SHORT_ZH = 5, 10
"""Words, or characters, of a question at least; shorter ones ("Who was he?") are nobody's."""
_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
_CJK = re.compile(f"[{CJK}]")


class Judged:
    """The runs of words of all evaluation files."""

    def __init__(self, texts: Iterator[str] | Sequence[str] = ()) -> None:
        self._runs: set[int] = set()
        self._whole: dict[int, set[int]] = {}
        """Length -> hashes of texts too short for a run."""
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        words = _words(text)
        size = _size(words)
        if len(words) >= size:
            self._runs.update(_hashes(words, size))
        elif len(words) >= (_SHORT_ZH if size == RUN_ZH else _SHORT):
            self._whole.setdefault(len(words), set()).update(_hashes(words, len(words)))

    def __bool__(self) -> bool:
        return bool(self._runs or self._whole)

    def holds(self, text: str) -> bool:
        """Whether a text shares a run, or holds a short text whole."""
        words = _words(text)
        if any(not self._runs.isdisjoint(_hashes(words, size)) for size in (RUN, RUN_ZH)):
            return True
        return any(
            not known.isdisjoint(_hashes(words, size)) for size, known in self._whole.items()
        )

    def overlaps(self, row: Row) -> bool:
        return self.holds(whole(row))


def evaluations(settings: TrainSettings) -> list[Path]:
    """Everything that the model will be judged on."""
    judge = settings.eval
    mine = (judge.questions, judge.grounding, judge.choice, judge.maths, judge.text)
    several = (settings.data.eval_files, *mine)
    return list(dict.fromkeys(path for paths in several for path in paths))


def read(paths: Sequence[Path]) -> Judged:
    """What the files at `paths` ask and show: items of grounding, questions, multiple choice, or
    plain text. Raises BadData."""
    judged = Judged()
    for path in paths:
        if files.is_text(path):
            judged.add(files.text(path))
            continue
        for record in files.records(path):
            try:
                said = list(_texts(record.value))
            except ValueError as error:
                raise BadData(f"{record.where}: {error}") from error
            if not said:
                raise BadData(f"{record.where}: has neither question, text, prompt nor messages")
            for text in said:
                judged.add(text)
    return judged


def _texts(value: files.Object) -> Iterator[str]:
    choices = value.get("choices")
    for key in ("question", "text", "prompt", "question_en", "question_zh"):
        if isinstance(value.get(key), str) and isinstance(choices, list):
            yield from _with_choices(value[key], choices)
        elif isinstance(value.get(key), str):
            yield value[key]
    for turn in _objects(value, "messages"):
        if turn.get("role") == "user":
            yield str(turn.get("content", ""))
    named = value.get("gold")
    gold = {str(i) for i in (named if isinstance(named, list) else [named])}
    for passage in _objects(value, "passages"):
        if "gold" not in value or str(passage.get("id")) in gold:
            yield str(passage.get("text", ""))


def _with_choices(question: str, choices: Sequence[object]) -> Iterator[str]:
    """A short question ("Which of these is wrong?") is anybody's, but not with what there is to
    choose from, plain or lettered."""
    if len(_words(question)) >= RUN:
        yield question
    yield " ".join([question, *map(str, choices)])
    yield " ".join([question, *(f"{chr(ord('A') + n)} {c}" for n, c in enumerate(choices))])


def _objects(value: files.Object, key: str) -> list[files.Object]:
    found = value.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{key}: must be a list of objects")
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _size(words: Sequence[str]) -> int:
    chinese = sum(1 for word in words if _CJK.match(word))
    return RUN_ZH if 2 * chinese > len(words) else RUN


def _hashes(words: Sequence[str], size: int) -> Iterator[int]:
    return (hash(tuple(words[at : at + size])) for at in range(len(words) - size + 1))
