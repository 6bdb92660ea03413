"""A whole Vademecum on real parts: `vademecum up` with vLLM and the bundled models."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI

from app.ports import free_port

ROOT = Path(__file__).parent.parent


class House:
    """A running Vademecum."""

    def __init__(self, home: Path, url: str, engine: str, process: "subprocess.Popen[str]") -> None:
        self.docs = home / "docs"
        self.url = url
        self.engine = engine
        self.process = process
        self.client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120)

    def ask(self, question: str) -> tuple[str, list[Any], bool]:
        """The answer's text, its annotations, and whether the server refused."""
        reply = self.client.chat.completions.create(
            model="vademecum", messages=[{"role": "user", "content": question}], max_tokens=40
        ).model_dump()
        message = reply["choices"][0]["message"]
        return message["content"], message["annotations"], reply["knowledge"]["refused"]

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def child(self, *words: str) -> psutil.Process:
        """The process of this house whose command line holds these words."""
        return self.children(*words)[0]

    def children(self, *words: str) -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        lines = [(process, _command_line(process)) for process in found]
        return [
            process
            for process, line in lines
            if line
            and all(word in line for word in words)
            and not any(part.endswith("leash.py") for part in line)
        ]


def _command_line(process: psutil.Process) -> list[str]:
    """Nothing of one that ended since it was listed: a test may just have killed it."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie too
        return []


def until(what: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)


@contextmanager
def running(home: Path) -> Iterator[House]:
    """Until it is ready, and until all of it has ended."""
    port, engine = free_port("127.0.0.1"), free_port("127.0.0.1")
    environment = os.environ | {
        "VADEMECUM_HOME": str(home),
        "VADEMECUM_APP__PORT": str(port),
        "VADEMECUM_ENGINE__PORT": str(engine),
    }
    command = [sys.executable, "-m", "app.cli", "up"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"ready http://127.0.0.1:{port}\n"
            yield House(home, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{engine}", process)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
