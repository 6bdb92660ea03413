"""What the trainers of all stages have in common. Knows no stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import PreTrainedTokenizerBase, Trainer

from finetune.checkpoints import WholeCheckpoints
from finetune.models import Model
from finetune.render import Ledger, Renderer
from finetune.settings import TrainSettings
from finetune.trainset import TrainSet


@dataclass(frozen=True, slots=True)
class Parts:
    """What every stage is built from."""

    settings: TrainSettings
    rows: TrainSet
    model: Model
    tokenizer: PreTrainedTokenizerBase
    bf16: bool

    @property
    def renderer(self) -> Renderer:
        return Renderer(self.tokenizer, chat=self.rows.chats)


Ready = tuple[Trainer, Ledger]


class Run(WholeCheckpoints):
    """What every stage's trainer has: whole checkpoints, tokens counted, no model cards."""

    pad = 0
    in_order = False
    """Rows are taken as they come: for a run that only measures."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        if self.in_order:
            return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]
        return super()._get_train_sampler(*args, **kwargs)

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        if isinstance(inputs, Mapping) and "input_ids" in inputs:
            seen = self.accelerator.reduce(_tokens(inputs, self.pad).to(self.args.device))
            self.state.num_input_tokens_seen += int(seen)
        return super().training_step(model, inputs, *args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes one beside every checkpoint; run.json says more."""


def _tokens(inputs: Mapping[str, Tensor], pad: int) -> Tensor:
    """Tokens of a batch without its padding."""
    if "attention_mask" in inputs:
        return inputs["attention_mask"].sum()
    return ((inputs["input_ids"] != pad) | (inputs["position_ids"] != 0)).sum()
