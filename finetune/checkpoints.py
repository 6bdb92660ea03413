"""Checkpoints that are whole or not there: written beside, synced, renamed, and only then rotated.

A kill or a full disk in the middle of a save leaves the one before as it was. Knows transformers'
Trainer, whose saving it wraps; nothing of stages or rows.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainerState
from transformers.trainer_utils import rotate_checkpoints

from kb import durable
from kb.errors import BadConfiguration, TrainingStopped, one_line

_NAME = re.compile(r"checkpoint-(\d+)")
_STATE = "trainer_state.json"
_SAVING = ".saving"
_PROMPT = "prompt_encoder.safetensors"


def is_whole(checkpoint: Path) -> bool:
    return (checkpoint / _STATE).is_file()


def last(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run folder."""
    found = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if (match := _NAME.fullmatch(path.name)) and is_whole(path)
    ]
    return max(found)[1] if found else None


def best(folder: Path, state: TrainerState) -> Path:
    """The whole checkpoint with the best held-out loss; where no loss decided, the newest."""
    beside = folder / f"checkpoint-{state.best_global_step}"
    for path in (beside, Path(state.best_model_checkpoint or beside), last(folder)):
        if path and is_whole(path):
            return path
    raise AssertionError("a run that ends has saved")


def state_of(checkpoint: Path) -> TrainerState:
    """What a trainer knew when it was written."""
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / _STATE))
    return state


class WholeCheckpoints(Trainer):
    """A Trainer (mix it in front) whose checkpoints are never seen half written.

    Raises BadConfiguration for what it cannot save.
    """

    _staging: Path | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            if _prompt_encoder(self.model):
                # It would have to be computed of its shards to be saved, and by one process.
                raise BadConfiguration(
                    "finetuning_type: a soft prompt cannot be sharded; take lora, or start"
                    " without FSDP"
                )
            if getattr(self.model, "is_loaded_in_4bit", False):
                # Packed in bytes, which FSDP would flatten beside weights of another kind.
                raise BadConfiguration(
                    "finetuning_type: 4-bit weights are not sharded here; take lora, or start"
                    " without FSDP: each GPU then holds all of them"
                )
            # Of shards, accelerate's default, transformers writes no weights that a result is of.
            plugin = self.accelerator.state.fsdp_plugin
            plugin.state_dict_config = plugin.optim_state_dict_config = None
            plugin.set_state_dict_type("FULL_STATE_DICT")

    def _get_output_dir(self, trial: Any) -> str:
        """Where transformers writes: beside, while a checkpoint is being saved."""
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Raises TrainingStopped if it cannot be written; the one before stays."""
        home = Path(str(self.args.output_dir))
        name = f"checkpoint-{self.state.global_step}"
        self._clear(home / _SAVING)
        self._staging = home / _SAVING
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._name_best(home, home / _SAVING / name)
                durable.sync_tree(home / _SAVING / name)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(home / _SAVING, ignore_errors=True)
            raise TrainingStopped(_why(error, name, home)) from error
        finally:
            self._staging = None
        if self.args.should_save:
            shutil.rmtree(home / name, ignore_errors=True)
            (home / _SAVING / name).rename(home / name)
            durable.sync(home)
            shutil.rmtree(home / _SAVING, ignore_errors=True)
            rotate_checkpoints(
                str(home), self.args.save_total_limit, self.state.best_model_checkpoint
            )
        self.accelerator.wait_for_everyone()

    def _clear(self, folder: Path) -> None:
        """What an earlier run left there."""
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _name_best(self, home: Path, written: Path) -> None:
        """transformers looked for the best checkpoint beside the one it was writing."""
        step = self.state.best_global_step
        best = home / f"checkpoint-{step}"
        if step and (best.is_dir() or best.name == written.name):
            self.state.best_model_checkpoint = str(best)
            self.state.save_to_json(str(written / _STATE))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A soft prompt's encoder too: PEFT saves only what it computes, from which no training
        can go on."""
        super()._save(output_dir, state_dict)
        if (encoder := _prompt_encoder(self.model)) and output_dir:
            save_file(encoder.state_dict(), Path(output_dir) / _PROMPT)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if encoder := _prompt_encoder(self.model):
            encoder.load_state_dict(load_file(Path(resume_from_checkpoint) / _PROMPT))
        elif isinstance(self.model, PeftModel) and len(self.model.peft_config) > 1:
            # Where there is a folder with the reference's adapter, transformers reads that alone,
            # and overlooks the one that is trained.
            trained = self.model.active_adapter
            self.model.load_adapter(resume_from_checkpoint, trained, is_trainable=True)


def _prompt_encoder(model: Any) -> nn.Module | None:
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        encoder = model.prompt_encoder[model.active_adapter]
        assert isinstance(encoder, nn.Module)
        return encoder
    return None


def _why(error: Exception, name: str, home: Path) -> str:
    before = last(home)
    kept = f"{before.name} is whole; the run goes on from it" if before else "there is none before"
    return f"{home}: {name} could not be written: {one_line(error)} ({kept})"
