"""A bar on a terminal, lines in a log: both tell speed, memory and the time that is left."""

import io
import re

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune.progress import Progress


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def shown(terminal: bool) -> str:
    """Of four steps of 50 tokens in half a second each, with a held-out loss after the second."""
    now = iter(n / 2 for n in range(100))
    screen = Screen(terminal)
    watch = Progress(clock=lambda: next(now), out=screen)
    arguments, control = TrainingArguments(output_dir="unused", use_cpu=True), TrainerControl()
    state = TrainerState(max_steps=4, is_world_process_zero=True)
    watch.on_train_begin(arguments, state, control)
    for step in range(1, 5):
        watch.on_step_begin(arguments, state, control)
        state.global_step, state.num_input_tokens_seen = step, 50 * step
        watch.on_step_end(arguments, state, control)
        watch.on_log(arguments, state, control, logs={"loss": 2.0 / step})
        if step == 2:
            watch.on_log(arguments, state, control, logs={"eval_domain_loss": 1.5})
    watch.on_train_end(arguments, state, control)
    return screen.getvalue()


def test_a_log_has_a_line_a_step_and_one_for_what_is_held_out() -> None:
    lines = shown(terminal=False).splitlines()
    peak = r"peak \d+\.\d GB"
    assert re.fullmatch(rf"step 1/4: loss 2\.0000, 100 tok/s, {peak}, 00:01 left", lines[0])
    assert lines[2] == "step 2/4: held out (domain) 1.5000" and len(lines) == 5


@pytest.mark.parametrize("said", ["4/4", "100 tok/s", "GB", "held out (domain) 1.5000", "<00:00"])
def test_a_terminal_has_a_bar_that_says_the_same(said: str) -> None:
    assert said in shown(terminal=True)
