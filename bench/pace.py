"""An embedding service of a known speed, in place of weights: what a benchmark then measures is
everything but the embedding, and does not depend on what else a machine computes."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kb.embedding import FakeEmbedder

_PASSAGE = 550
"""Characters of a passage, by which the pace is counted."""


@contextmanager
def paced(per_second: float) -> Iterator[str]:
    """Serve `/v1/embeddings` at so many passages a second, one request like any other. Yields the
    address."""
    embedder = FakeEmbedder()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
            begun = time.perf_counter()
            vectors = embedder.passages(texts).tolist()
            wait = sum(map(len, texts)) / _PASSAGE / per_second
            time.sleep(max(0.0, wait - (time.perf_counter() - begun)))
            rows = [{"index": i, "embedding": v} for i, v in enumerate(vectors)]
            body = json.dumps({"data": rows}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not worth a line each."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
