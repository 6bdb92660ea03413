"""An OpenAI-compatible engine in a thread that always says the same, over real HTTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class _Handler(BaseHTTPRequestHandler):
    words: tuple[str, ...] = ()

    def do_GET(self) -> None:
        self._reply("application/json", json.dumps({"data": [{"id": "base"}]}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        pieces = [{"choices": [{"delta": {"content": word}}]} for word in self.words]
        pieces.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        lines = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
        self._reply("text/event-stream", "".join([*lines, "data: [DONE]\n\n"]))

    def _reply(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def engine(*words: str) -> Iterator[str]:
    """Its base URL."""
    handler = type("Handler", (_Handler,), {"words": words})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
