"""Runs `vademecum` as users do: arguments and environment in, output and exit code out."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from app.cli import main

ROOT = Path(__file__).parents[2]
FAKE = {"VADEMECUM_KB__EMBEDDER": "fake:64"}


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, without settings of the user's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VADEMECUM_")}
    return kept | {"VADEMECUM_HOME": str(home), "PYTHONPATH": str(ROOT)} | FAKE | dict(more or {})


@dataclass(frozen=True)
class Done:
    """How a command ended, named as subprocess names it."""

    returncode: int
    stdout: str
    stderr: str


class Vademecum:
    """The command line for one home; its working directory holds no vademecum.toml."""

    def __init__(self, home: Path, cwd: Path) -> None:
        self.home = home
        self.cwd = cwd

    def __call__(self, *args: str, **more: str) -> Done:
        """Run it in this process, which is quick."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environment(self.home, more), clear=True),
            contextlib.chdir(self.cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main(args)
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())

    def process(self, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *args],
            env=environment(self.home, more),
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *args: str, **more: str) -> Any:
        """The one document on standard output; fails where there is anything else, or an error."""
        done = self(*args, "--json", **more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *args: str, **more: str) -> subprocess.Popen[str]:
        """The same, left running; what it says is in `stderr.txt`."""
        with (self.cwd / "stderr.txt").open("w") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "app.cli", *args],
                env=environment(self.home, more),
                cwd=self.cwd,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
