"""How well the running server answers the sample handbook's questions.

    python -m bench.sample [--json] [--show]

An answerable question counts as right when an accepted answer stands in the reply and the right
document is cited; one without an answer when the server refuses.
"""

import json
from pathlib import Path
from typing import Any

import httpx

from bench.server import parser, show, target

QUESTIONS = Path(__file__).parent.parent / "examples" / "questions.jsonl"


def ask(client: httpx.Client, url: str, question: str) -> tuple[str, list[str], bool]:
    """The reply, the cited file names, and whether the server refused."""
    body = {"model": "vademecum", "messages": [{"role": "user", "content": question}]}
    reply = client.post(f"{url}/v1/chat/completions", json=body)
    reply.raise_for_status()
    answer = reply.json()
    message = answer["choices"][0]["message"]
    cited = [note["filename"] for note in message.get("annotations") or []]
    return message["content"], cited, bool(answer["knowledge"]["refused"])


def judge(item: dict[str, Any], text: str, cited: list[str], refused: bool) -> dict[str, Any]:
    """One question's outcome."""
    said = text.casefold()
    return {
        "language": item["language"],
        "answerable": bool(item["answers"]),
        "correct": any(answer.casefold() in said for answer in item["answers"]),
        "cited": item["document"] in cited,
        "first_cited": cited[:1] == [item["document"]],
        "refused": refused,
    }


def summary(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each language and one for both; shares are of answerable or unanswerable items."""
    rows = []
    for language in ("en", "zh", "both"):
        mine = [o for o in outcomes if language in (o["language"], "both")]
        yes = [o for o in mine if o["answerable"]]
        no = [o for o in mine if not o["answerable"]]
        rows.append(
            {
                "language": language,
                "answerable": len(yes),
                "answer and right document": _share(yes, "correct", "cited"),
                "right document cited": _share(yes, "cited"),
                "right document cited first": _share(yes, "first_cited"),
                "wrongly refused": _share(yes, "refused"),
                "unanswerable": len(no),
                "refused": _share(no, "refused"),
            }
        )
    return rows


def _share(outcomes: list[dict[str, Any]], *keys: str) -> float:
    hits = sum(all(o[key] for key in keys) for o in outcomes)
    return round(hits / len(outcomes), 3) if outcomes else 0.0


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--show", action="store_true", help="print what went wrong")
    options = arguments.parse_args()
    items = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    outcomes = []
    with httpx.Client(timeout=300) as client:
        for item in items:
            text, cited, refused = ask(client, target().url, item["question"])
            outcome = judge(item, text, cited, refused)
            outcomes.append(outcome)
            good = outcome["correct"] and outcome["cited"] if item["answers"] else refused
            if options.show and not good:
                print(f"{item['question']}\n  wanted {item['answers']} {item['document']}")
                print(f"  got {cited} {text!r}\n")
    rows = summary(outcomes)
    show(rows, {"sample": rows}, options.json)


if __name__ == "__main__":
    main()
