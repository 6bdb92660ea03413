"""What the benchmarks share: the running server's address, streams timed piece by piece, tables."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from app.settings import AppSettings, EngineSettings
from kb.settings import Configuration, load


@dataclass(frozen=True, slots=True)
class Target:
    """The server under measurement and the configuration it was started with."""

    url: str
    configuration: Configuration
    app: AppSettings
    engine: EngineSettings


def target() -> Target:
    """The server that this folder's configuration describes."""
    configuration = load()
    app = configuration.section("app", AppSettings)
    engine = configuration.section("engine", EngineSettings)
    return Target(f"http://127.0.0.1:{app.port}", configuration, app, engine)


def parser(doc: str | None) -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(description=(doc or "").strip().splitlines()[0])
    out.add_argument("--json", action="store_true", help="print one JSON document only")
    return out


def chat(client: httpx.Client, url: str, body: Mapping[str, Any]) -> Iterator[tuple[float, Any]]:
    """Stream a chat completion: (seconds since the request, chunk) for each chunk."""
    begun = time.perf_counter()
    with client.stream(
        "POST", f"{url}/v1/chat/completions", json={**body, "stream": True}
    ) as reply:
        if reply.is_error:
            reply.read()
        reply.raise_for_status()
        for line in reply.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield time.perf_counter() - begun, json.loads(line.removeprefix("data: "))


def content(chunk: Mapping[str, Any]) -> str:
    """The text of a streamed chunk."""
    choices = chunk.get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or "")


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds."""
    ordered = sorted(seconds)
    at95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"p50": round(1e3 * statistics.median(ordered), 1), "p95": round(1e3 * at95, 1)}


def show(rows: Sequence[Mapping[str, Any]], result: Mapping[str, Any], as_json: bool) -> None:
    """A table for people, then the JSON; or the JSON alone."""
    if not as_json:
        names = list(rows[0])
        print(" | ".join(names))
        print(" | ".join("---" for _ in names))
        for row in rows:
            print(" | ".join(str(row[name]) for name in names))
        print()
    machine = f"{platform.machine()}, {platform.python_version()}"
    print(json.dumps({**result, "machine": machine}, ensure_ascii=False, indent=None))
