"""Real processes of the command line that have their imports behind them: to kill, to put together.

Importing the trainer takes a process twenty seconds of a processor; here one server does it, once
for a file of tests, and every process is forked from it before any thread was started.
"""

import gc
import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

from finetune import cli

CLI = "finetune.cli"
_STAGES = ("supervised", "preferences", "exploring", "local")


def start(
    *arguments: str, said: Path, environment: Mapping[str, str], module: str = CLI
) -> ForkServerProcess:
    """`finetune ARGUMENTS` after importing MODULE; it prints to `said`.out and `said`.err."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["finetune.train", "bitsandbytes", CLI, *(f"finetune.{stage}" for stage in _STAGES)]
    )
    process = context.Process(target=_main, args=(module, arguments, said, dict(environment)))
    process.start()
    return process


def _main(module: str, arguments: tuple[str, ...], said: Path, environment: dict[str, str]) -> None:
    gc.freeze()  # as in tests/conftest.py
    os.environ.update(environment)
    if threads := environment.get("OMP_NUM_THREADS"):  # torch has read it already
        torch.set_num_threads(int(threads))
    for suffix, stream in ((".out", 1), (".err", 2)):
        file = os.open(said.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
    sys.argv = ["finetune", *arguments]
    importlib.import_module(module)
    sys.exit(cli.main())
