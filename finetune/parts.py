"""What the trainers of all stages have in common. Knows no stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_utils import EvalLoopOutput

from finetune.checkpoints import WholeCheckpoints, last
from finetune.models import Model
from finetune.render import Ledger, Renderer
from finetune.settings import TrainSettings
from finetune.trainset import TrainSet
from kb.errors import TrainingStopped


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
    """What every stage's trainer has: whole checkpoints, tokens counted, an end where no number is
    left to train, no model cards."""

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
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._finite("loss", float(loss), self.state.global_step + 1)
        return loss

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        seen = super().evaluation_loop(*args, **kwargs)
        for name, value in (seen.metrics or {}).items():
            if name.endswith("_loss"):
                self._finite(f"held-out loss ({name[5:-5]})", value, self.state.global_step)
        return seen

    def _finite(self, what: str, loss: float, step: int) -> None:
        """Raises TrainingStopped for a loss that is no number: soon no weight is one, and a trainer
        goes on for hours."""
        if isfinite(loss):
            return
        home, pace = Path(str(self.args.output_dir)), f"{self.args.learning_rate:g}"
        saved = last(home)
        raise TrainingStopped(
            f"{home}: the {what} of step {step} is {loss}: at learning_rate {pace} the run has come"
            " apart; take a lower one, or a longer warmup_ratio, with another output_dir"
            f" ({saved.name if saved else 'nothing'} was saved last)"
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes one beside every checkpoint; run.json says more."""


def _tokens(inputs: Mapping[str, Tensor], pad: int) -> Tensor:
    """Tokens of a batch without its padding."""
    if "attention_mask" in inputs:
        return inputs["attention_mask"].sum()
    return ((inputs["input_ids"] != pad) | (inputs["position_ids"] != 0)).sum()
