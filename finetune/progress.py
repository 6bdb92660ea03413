"""How far a run is: a bar on a terminal, lines in a log; tokens/s, memory, time left.

Watches a trainer from outside; `state.num_input_tokens_seen` is the count of tokens, and only
the time inside steps counts (neither evaluation nor saving), so that speeds can be compared.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.device import peak_mb

Clock = Callable[[], float]


class Progress(TrainerCallback):
    """Give it to one trainer, for one run."""

    def __init__(self, clock: Clock = time.monotonic, out: TextIO | None = None) -> None:
        self._clock = clock
        self._out = out or sys.stderr
        self._step_begun = 0.0
        self._tokens_before = 0
        self._steps_before = 0
        self._loss = float("nan")
        self._bar: tqdm[Any] | None = None
        self.seconds = 0.0
        """Inside steps."""
        self.tokens = 0
        """Of this process's steps; a resumed run counts from where it went on."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._tokens_before = int(state.num_input_tokens_seen)
        self._steps_before = state.global_step
        if state.is_world_process_zero and self._out.isatty():
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, file=self._out)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step_begun = self._clock()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.seconds += self._clock() - self._step_begun
        self.tokens = int(state.num_input_tokens_seen) - self._tokens_before
        if self._bar is not None:
            self._bar.set_postfix_str(self._said(), refresh=False)
            self._bar.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        held = {k: v for k, v in logs.items() if k.startswith("eval_") and k.endswith("_loss")}
        self._loss = logs.get("loss", self._loss)
        if not state.is_world_process_zero or not ("loss" in logs or held):
            return
        said = (
            ", ".join(f"held out ({k[5:-5]}) {v:.4f}" for k, v in held.items())
            or f"{self._said()}, {self._left(state)} left"
        )
        line = f"step {state.global_step}/{state.max_steps}: {said}"
        if self._bar is None:
            self._out.write(line + "\n")
            self._out.flush()
        elif held:
            self._bar.write(line, file=self._out)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _said(self) -> str:
        return (
            f"loss {self._loss:.4f}, {self.tokens_per_second:.0f} tok/s,"
            f" peak {peak_mb() / 1024:.1f} GB"
        )

    def _left(self, state: TrainerState) -> str:
        done = state.global_step - self._steps_before
        if not done:
            return "?"
        left = self.seconds / done * (state.max_steps - state.global_step)
        return str(tqdm.format_interval(left))
