"""Every benchmark of the knowledge base, one after another: tables, then one JSON document.

    python -m bench.kb [--only finding,scale]

Takes some hours on two quiet cores, most of them for embedding, which is kept for the next time.
`--only` names some of them. One that fails is named in the JSON and does not keep the others; the
exit code is 1 then. VADEMECUM_DATA names the folder of collections.

Left out: freshness while nothing else comes (`bench.freshness --alone`) or at the speed of a
pretended embedder (`--pace`), a rough look at size (`bench.scale --synthetic`), other ways to cut
and to ask (`bench.cutting`), other collections and sizes than each benchmark's own, losses at a
crash (`make soak`), and whatever asks a running server (`make bench`) or trains
(`make bench-train`). Peers are compared only where they are installed.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

BENCHES: dict[str, tuple[str, ...]] = {
    "encode": (),
    "ingest_rate": (),
    "freshness": ("--alone", "--bulk", "3000"),
    "finding": (),
    "mixed": (),
    "evidence": (),
    "scale": (),
    "remake": (),
    "formats": (),
    "peers": (),
}


def run(name: str) -> Any:
    """Its tables as they come; returns the JSON document that it prints last, or why it failed."""
    command = [sys.executable, "-m", f"bench.{name}", *BENCHES[name]]
    print(f"\n== {' '.join(command[1:])}", flush=True)
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                last = line
            else:
                print(line, end="", flush=True)
    if process.returncode or not last:
        return {"failed": f"{' '.join(command[1:])} ended with {process.returncode}"}
    return json.loads(last)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--only", default=",".join(BENCHES))
    names = arguments.parse_args().only.split(",")
    if unknown := [name for name in names if name not in BENCHES]:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    found = {name: run(name) for name in names}
    print(json.dumps(found, ensure_ascii=False))
    if failed := [name for name in names if "failed" in found[name]]:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
