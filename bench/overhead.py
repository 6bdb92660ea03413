"""What the server adds to the first token of the bare engine given the same messages, in one run.

    python -m bench.overhead [--json] [--rounds 20]

The messages are rebuilt from what the server says it retrieved, and sent to the engine too; the
two are asked in turn. Where the passages' own words lead an answer, they reach the user before the
model's first token: both moments are shown.
"""

import statistics
from typing import Any

import httpx

from app.profile import Profile
from bench.server import Target, chat, content, parser, percentiles, show, target
from kb import prompt
from kb.records import Chunk, Hit

QUESTIONS = (
    "What number do I dial for the duty pharmacist when the counter is shut?",
    "How much Zelvorin does an adult take at the start of treatment?",
    "Which room is the refrigerator with the travel vaccines in?",
)


def messages_of(question: str, knowledge: dict[str, Any], profile: Profile) -> list[dict[str, str]]:
    """The messages that the server sent to the engine for this question."""
    hits = []
    for found in knowledge["hits"]:
        text = found["text"]
        chunk = Chunk(found["number"], 0, 0, len(text), text, "", None)
        hits.append(Hit(chunk, found["file_id"], found["filename"], "", "", 0.0, 0.0, 0.0, 0.0))
    excerpts = prompt.excerpts(knowledge["query"], hits, profile.context_tokens)
    return prompt.messages(question, excerpts)


def through_server(client: httpx.Client, url: str, question: str) -> dict[str, Any]:
    """Seconds to the first text, seconds to the model's first token, and the knowledge object."""
    body = {
        "model": "vademecum",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 16,
    }
    texts: list[tuple[float, str]] = []
    knowledge = None
    for seconds, chunk in chat(client, url, body):
        if text := content(chunk):
            texts.append((seconds, text))
        knowledge = chunk.get("knowledge") or knowledge
    # An empty line parts what leads the answer from what the model says.
    parted = [i for i, (_, text) in enumerate(texts) if text == "\n\n"]
    model = texts[parted[0] + 1] if parted and texts[0][1].startswith("“") else texts[0]
    return {"first": texts[0][0], "model": model[0], "knowledge": knowledge}


def bare(client: httpx.Client, at: Target, messages: list[dict[str, str]]) -> float:
    """Seconds to the engine's first token."""
    url = at.engine.url or f"http://127.0.0.1:{at.engine.port}"
    model = at.engine.model if at.engine.url else "base"
    body = {"model": model, "messages": messages, "temperature": 0.0, "max_tokens": 16}
    return next(seconds for seconds, chunk in chat(client, url, body) if content(chunk))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=20)
    options = arguments.parse_args()
    at = target()
    profile = Profile.of(at.engine, at.app)
    first, model, engine = [], [], []
    with httpx.Client(timeout=300) as client:
        for question in QUESTIONS:
            told = through_server(client, at.url, question)  # warms both caches
            messages = messages_of(question, told["knowledge"], profile)
            bare(client, at, messages)
            for _ in range(options.rounds):
                engine.append(bare(client, at, messages))
                served = through_server(client, at.url, question)
                first.append(served["first"])
                model.append(served["model"])
    added = statistics.median(model) - statistics.median(engine)
    result = {
        "bare_engine_first_token_ms": percentiles(engine),
        "server_first_text_ms": percentiles(first),
        "server_model_first_token_ms": percentiles(model),
        "added_ms": round(1e3 * added, 1),
    }
    rows = [
        {"first token of": "bare engine", **percentiles(engine)},
        {"first token of": "server, any text", **percentiles(first)},
        {"first token of": "server, the model's", **percentiles(model)},
    ]
    show(rows, result, options.json)


if __name__ == "__main__":
    main()
