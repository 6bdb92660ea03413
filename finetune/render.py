"""Row -> token ids and labels, through the model's own chat template; the ledger of lengths.

Training must see exactly the tokens that the engine will see: the whole conversation is rendered
once and tokenized once, and what the assistant said is found in it by characters. Trained are the
assistant's words and the token that ends its turn, nothing else. Nothing is cut: a row that is too
long is refused and counted. Knows nothing of trainers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from finetune.rows import Message, Role, Row
from kb.errors import BadConfiguration, BadData, one_line

IGNORED = -100
"""The label of a token that is not trained (PyTorch's cross entropy skips it)."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids and labels of one row, both of the same length; labels are IGNORED or the id."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    worse: "Rendered | None" = None
    """The same with the rejected answer, where a stage compares."""

    @property
    def longest(self) -> int:
        return max(len(self.input_ids), self.worse.longest if self.worse else 0)

    @property
    def trained(self) -> int:
        """How many tokens are trained (the first token of a row never is: nothing predicts it)."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(slots=True)
class Ledger:
    """What became of all rows: nothing disappears without being counted here."""

    rendered: int = 0
    too_long: list[str] = field(default_factory=list)
    """`source: N tokens, more than M`."""
    held_out: dict[Role, int] = field(default_factory=dict)
    """Rows on which losses are measured."""
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0

    def fits(self, row: Row, one: Rendered, most: int) -> bool:
        """Count a row; whether it is of at most `most` tokens, of a pair both."""
        if one.longest > most:
            self.too_long.append(f"{row.origin.source}: {one.longest} tokens, limit {most}")
            return False
        self.rendered += 1
        self.tokens += len(one.input_ids)
        self.trained_tokens += one.trained
        self.longest = max(self.longest, one.longest)
        return True


class Renderer:
    """Renders for one tokenizer. Raises BadConfiguration if it cannot: no chat template, or a
    tokenizer that cannot tell which characters a token stands for."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, chat: bool = True) -> None:
        if chat and not tokenizer.chat_template:
            raise BadConfiguration(
                f"{tokenizer.name_or_path}: the model has no chat template; stage pt needs none,"
                " for the others choose an instruct model or add chat_template.jinja to its folder"
            )
        if not tokenizer.is_fast:
            raise BadConfiguration(f"{tokenizer.name_or_path}: has no tokenizer.json (fast)")
        self.tokenizer = tokenizer

    def text(self, messages: Sequence[Message], *, ask: bool = False, source: str = "") -> str:
        """The conversation as the template writes it; `ask`: up to where the model would speak.
        Raises BadData, with the `source` of a row, if it will not (no system role, say)."""
        said = [m.model_dump() for m in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=ask
            )
        except TemplateError as error:
            where = source or self.tokenizer.name_or_path
            told = f"the chat template does not take these messages: {one_line(error)}"
            raise BadData(f"{where}: {told}") from error
        assert isinstance(text, str)
        return text

    def row(self, row: Row, *, pairs: bool = False) -> Rendered:
        """`pairs`: with its rejected answer. Raises BadData if the template does not show an answer
        as it was written."""
        if pairs:
            return replace(self.row(row), worse=self.row(row.worse))
        return self.plain(row.text) if row.text else self.chat(row.messages, row.origin.source)

    def plain(self, text: str) -> Rendered:
        """Text for continued pre-training: every token trained, and its end."""
        ids = self.tokenizer(text, add_special_tokens=True)["input_ids"]
        end = self.tokenizer.eos_token_id
        ids = [*ids, end] if end is not None and (not ids or ids[-1] != end) else ids
        return Rendered(tuple(ids), tuple(ids))

    def chat(self, messages: Sequence[Message], source: str = "") -> Rendered:
        text = self.text(messages, source=source)
        spans = self._spans(text, messages, source)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        labels = [
            token if any(start <= a and b <= end and a < b for start, end in spans) else IGNORED
            for token, (a, b) in zip(ids, encoded["offset_mapping"], strict=True)
        ]
        return Rendered(tuple(ids), tuple(labels))

    def _spans(self, text: str, messages: Sequence[Message], source: str) -> list[tuple[int, int]]:
        """Character spans of what the assistant said, each with the token that ends its turn.

        A template that rewrites earlier answers (drops their reasoning) leaves only the last one
        to train: what the engine would never show must not be learned.
        """
        spans = []
        for n, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self.text(messages[:n], ask=True, source=source)
            until = self.text(messages[: n + 1], source=source)
            if text.startswith(before) and text.startswith(until):
                said = until[len(before) :]
                # What follows the end token (a line break) belongs to the template.
                spans.append((len(before), len(before) + len(said.rstrip("\n"))))
        last = messages[-1].content.strip()
        if not spans or last not in text[slice(*spans[-1])]:
            raise BadData(f"{source}: the chat template does not show the answer as it was written")
        return spans


def render(
    rows: Sequence[Row], renderer: Renderer, most: int, *, pairs: bool = False
) -> tuple[list[Rendered], Ledger]:
    """All rows of at most `most` tokens, in order; the ledger names the others."""
    ledger = Ledger()
    made = ((row, renderer.row(row, pairs=pairs)) for row in rows)
    return [one for row, one in made if ledger.fits(row, one, most)], ledger
