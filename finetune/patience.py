"""Which weights of a run are kept, and when it is over. Knows no stage.

transformers saves every `save_steps` and at the last step: the best weights, and those of a run
that stops before, may fall between.
"""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Patience(TrainerCallback):
    """Keeps a checkpoint of every better held-out loss, and stops a run after `evaluations` without
    one (0: never).

    Whoever goes on with a run may measure more often or have less patience: nothing of that is
    brought back from a checkpoint.
    """

    def __init__(self, evaluations: int) -> None:
        self.evaluations = evaluations

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # How often to log, measure and save, as the configuration says: transformers takes that
        # from the checkpoint.
        state.compute_steps(args, state.max_steps)  # type: ignore[no-untyped-call]

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        # Called for each role's rows; one of them decides.
        loss = (metrics or {}).get(str(args.metric_for_best_model))
        if loss is None:
            return
        # The state still has the best one before: it is compared after this call.
        better = state.best_metric is None or loss < state.best_metric
        over = not better and is_over(state, args, self.evaluations)
        control.should_save |= better or over
        control.should_training_stop |= over


def is_over(state: TrainerState, args: TrainingArguments, patience: int) -> bool:
    """Whether there is nothing left to train after what `state` remembers."""
    best = state.best_global_step or 0
    deciding = str(args.metric_for_best_model)
    waited = sum(deciding in entry and entry["step"] > best for entry in state.log_history)
    return state.global_step >= state.max_steps or 0 < patience <= waited
