"""How much of real and broken documents is read, format by format. No server needed.

    python -m bench.formats [--json] [--data FOLDER]

Reads every file of `docs_ingest` as the daemon does, in its limited child process. Recall is that
of words: of the words of the expected text (runs of letters and digits, lower case, each as often
as it stands there), the share that is in the text read, at most as often. The expected texts are
another program's output: they repeat merged cells, number lists and name charts, so 1.0 is out of
reach where they do. Markup and remarks in them are not counted.
"""

import html
import json
import os
import re
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.server import parser, show
from ingest.parse import Parser
from ingest.settings import IngestSettings
from kb.chunking import chunk
from kb.errors import Unreadable
from kb.settings import KbSettings

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("VADEMECUM_DATA", ROOT.parent / "shared" / "data"))
_WORD = re.compile(r"[^\W_]+")
_REMARK = re.compile(r"<!--.*?-->", re.DOTALL)
_TARGET = re.compile(r"\]\([^)\s]*\)")
_ESCAPE = re.compile(r"\\([^\w\s])")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One file: `failure` is empty where it can be searched; `recall` is None without a truth."""

    format: str
    path: str
    seconds: float
    failure: str = ""
    found: int = 0
    expected: int | None = None


def words(text: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORD.findall(text))


def truth(markdown: str) -> str:
    """The words of an expected Markdown text without what its markup adds."""
    plain = _TARGET.sub("]", _REMARK.sub("", markdown))
    return html.unescape(_ESCAPE.sub(r"\1", plain))


def outcome(reader: Parser, folder: Path, row: dict[str, Any]) -> Outcome:
    file = folder / row["path"]
    kind = file.suffix.lower().removeprefix(".")
    kind = "pdf (scanned)" if kind == "pdf" and row.get("pypdf_chars") == 0 else kind
    begun = time.perf_counter()
    try:
        text = reader.parse(file.name, file.read_bytes()).text
        failure = "" if chunk(text, KbSettings().chunk_tokens) else f"{file.name} gave no passage"
    except Unreadable as error:
        text, failure = "", str(error)
    seconds = time.perf_counter() - begun
    if "groundtruth" not in row:
        return Outcome(kind, row["path"], seconds, failure)
    wanted = words(truth((folder / row["groundtruth"]).read_text(encoding="utf-8")))
    found = sum((wanted & words(text)).values())
    return Outcome(kind, row["path"], seconds, failure, found, sum(wanted.values()))


def summary(kind: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """A row of the table. Recall is over all words of a format: long files weigh more."""
    seconds = [one.seconds for one in outcomes]
    known = [one for one in outcomes if one.expected]
    expected = sum(one.expected or 0 for one in known)
    return {
        "format": kind,
        "files": len(outcomes),
        "searchable": sum(not one.failure for one in outcomes),
        "failed": sum(bool(one.failure) for one in outcomes),
        "with truth": len(known),
        "recall": round(sum(one.found for one in known) / expected, 3) if known else "",
        "worst file": round(min(o.found / (o.expected or 1) for o in known), 3) if known else "",
        "p50 s": round(statistics.median(seconds), 3),
        "max s": round(max(seconds), 2),
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, default=DATA / "docs_ingest")
    options = arguments.parse_args()
    manifest = options.data / "manifest.jsonl"
    if not manifest.is_file():
        raise SystemExit(f"{manifest} is not there; --data names the folder with the documents")
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    reader = Parser(IngestSettings())
    by_format: dict[str, list[Outcome]] = defaultdict(list)
    for row in rows:
        one = outcome(reader, options.data, row)
        by_format[one.format].append(one)
    reader.close()
    table = [summary(kind, by_format[kind]) for kind in sorted(by_format)]
    table.append(summary("all", [one for outcomes in by_format.values() for one in outcomes]))
    failures = [o.failure for outcomes in by_format.values() for o in outcomes if o.failure]
    if not options.json:
        print("\n".join(failures), end="\n\n")
    show(table, {"formats": table, "failures": failures}, options.json)


if __name__ == "__main__":
    main()
