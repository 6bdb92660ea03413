"""How quickly does the engine start, and how quickly does it answer, with which of its flags?

    python bench/engine_start.py MODEL_FOLDER [--only "eager;-O1, first"] [--json FILE]

Starts vLLM with each set of flags, waits for /health, asks, adds up memory, stops it. Behind
docs/decisions/005-engine-start.md. Knows nothing of the supervisor.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

PORT = 18431
LIMIT = 900.0
COMMON = ["--max-model-len", "4096", "--max-num-seqs", "16"]
Variant = tuple[list[str], dict[str, str], bool]
"""Arguments, environment, and whether the compile cache of the variant before it is kept."""
ALONE = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
VARIANTS: dict[str, Variant] = {
    "eager, first": (["--enforce-eager"], {}, False),
    "eager": (["--enforce-eager"], {}, True),
    "eager, no prefix caching": (["--enforce-eager", "--no-enable-prefix-caching"], {}, True),
    "eager, one process": (
        ["--enforce-eager", "--distributed-executor-backend", "uni"],
        ALONE,
        True,
    ),
    "eager, all cores": (["--enforce-eager"], {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}, True),
    "-O1, first": (["-O1"], {}, False),
    "-O1, second": (["-O1"], {}, True),
    "compiled, first": ([], {}, False),
    "compiled, second": ([], {}, True),
    "compiled, all cores, first": ([], {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}, False),
    "compiled, all cores, second": ([], {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}, True),
}
SENTENCE = "Keep record {n} of the ward {w} refrigerator within two and eight degrees. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--variants", type=Path, help="a JSON file of more variants")
    options = parser.parse_args()
    variants = dict(VARIANTS)
    if options.variants:
        variants = {k: tuple(v) for k, v in json.loads(options.variants.read_text()).items()}
    chosen = [v.strip() for v in options.only.split(";")] if options.only else list(variants)
    rows = []
    cache = Path(tempfile.mkdtemp(prefix="engine-start-"))
    try:
        for name in chosen:
            args, environment, warm = variants[name]
            if not warm:
                shutil.rmtree(cache, ignore_errors=True)
            rows.append({"variant": name} | measure(options.model, args, environment, cache))
            print(json.dumps(rows[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=2) + "\n")
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def measure(
    model: str, args: list[str], environment: Mapping[str, str], cache: Path
) -> dict[str, Any]:
    cache.mkdir(parents=True, exist_ok=True)
    environ = os.environ | {
        "VLLM_CACHE_ROOT": str(cache),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        **environment,
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--served-model-name", "base", "--host", "127.0.0.1", "--port", str(PORT)]
    log = Path(tempfile.gettempdir()) / "engine-start.log"
    began = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, *COMMON, *args],
            env=environ,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        if not wait(process, began):
            return {"failed": log.read_text()[-2000:]}
        row: dict[str, Any] = {"start_s": round(time.monotonic() - began, 1)}
        began = time.monotonic()
        ask(1, 8)
        row["first_answer_s"] = round(time.monotonic() - began, 2)
        return row | speeds() | {"memory_mb": memory(process.pid)}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for pid in session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        while in_use():
            time.sleep(0.2)


def wait(process: subprocess.Popen[bytes], began: float) -> bool:
    while process.poll() is None and time.monotonic() - began < LIMIT:
        try:
            if httpx.get(f"http://127.0.0.1:{PORT}/health", timeout=2).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
        time.sleep(0.25)
    return False


def speeds() -> dict[str, Any]:
    """First token of new and of repeated 300-token prompts; tokens/s alone and four at once."""
    new = [ask(100 + i, 1)["first"] for i in range(5)]
    repeated = [ask(100 + i, 1)["first"] for i in range(5)]
    alone = [ask(200 + i, 128) for i in range(3)]
    began = time.monotonic()
    replies: list[dict[str, float]] = []
    threads = [
        threading.Thread(target=lambda i=i: replies.append(ask(300 + i, 128))) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    four = sum(r["tokens"] for r in replies) / (time.monotonic() - began)
    return {
        "prompt_tokens": alone[0]["prompt"],
        "first_token_s": round(statistics.median(new), 3),
        "first_token_repeated_s": round(statistics.median(repeated), 3),
        "tokens_per_s": round(statistics.median(r["rate"] for r in alone), 1),
        "tokens_per_s_of_four": round(four, 1),
    }


def ask(seed: int, tokens: int) -> dict[str, float]:
    prompt = "".join(SENTENCE.format(n=seed * 50 + i, w=seed) for i in range(14))
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": prompt + "What is to be kept?"}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.monotonic()
    first = 0.0
    usage: dict[str, int] = {}
    url = f"http://127.0.0.1:{PORT}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=300) as reply:
        for line in reply.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            if not first and chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                first = time.monotonic() - began
    took = time.monotonic() - began - first
    n = usage["completion_tokens"]
    rate = (n - 1) / took if n > 1 else 0.0
    return {"first": first, "rate": rate, "tokens": n, "prompt": usage["prompt_tokens"]}


def session(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            found.append(int(stat.parent.name))
    return found


def memory(leader: int) -> int:
    """Proportional set size of all processes of a session, in MB."""
    total = 0
    for pid in session(leader):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total // 1024


def in_use() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


if __name__ == "__main__":
    main()
