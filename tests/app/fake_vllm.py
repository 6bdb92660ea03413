"""What of vLLM's server a promotion meets, over real HTTP: models, adapters, answers.

Its base says "base"; an adapter says its name before the dot.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from app import engines


class Vllm(ThreadingHTTPServer):
    """An engine on a port of its own."""

    def __init__(
        self,
        port: int = 0,
        *,
        base: str = "base",
        adapters: bool = True,
        refuses: tuple[int, str] | None = None,
    ) -> None:
        """`refuses`: the status and message with which an adapter ({path}) is not loaded."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.words = {"base": base}
        self.takes_adapters = adapters
        self.refuses = refuses
        self.answered = 0
        self.loaded: list[tuple[str, str]] = []  # every load there ever was: name, path
        self.thread = Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def restart(self) -> None:
        """As an engine that was started anew: its adapters are gone."""
        self.words = {"base": self.words["base"]}

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Vllm

    def do_GET(self) -> None:
        self._json(200, {"data": [{"id": name} for name in self.server.words]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("lora_adapter"):
            self._adapter(body)
        elif (model := body["model"] or "base") not in self.server.words:  # "" is the base's too
            self._json(404, {"error": {"message": f"The model {model} does not exist."}})
        else:
            first, *others = self.server.words[model].split("|")
            # Another text in every third answer, as rounding may give it.
            self.server.answered += 1
            self._stream(others[0] if others and self.server.answered % 3 == 0 else first)

    def _adapter(self, body: dict[str, Any]) -> None:
        if not self.server.takes_adapters:
            self._json(404, {"detail": "Not Found"})
        elif self.path == "/v1/load_lora_adapter" and self.server.refuses:
            status, message = self.server.refuses
            said = {"message": message.format(path=body["lora_path"]), "code": status}
            self._json(status, {"error": said})
        elif self.path == "/v1/load_lora_adapter":
            assert (Path(body["lora_path"]) / "adapter_config.json").is_file()
            self.server.loaded.append((body["lora_name"], body["lora_path"]))
            self.server.words[body["lora_name"]] = body["lora_name"].rpartition(".")[0]
            self._text(200, "Success")
        else:
            del self.server.words[body["lora_name"]]
            self._text(200, "Success")

    def _stream(self, word: str) -> None:
        chunks = [
            {"choices": [{"delta": {"content": word}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        ]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self._text(200, "".join([*lines, "data: [DONE]\n\n"]), "text/event-stream")

    def _json(self, status: int, body: Any) -> None:
        self._text(status, json.dumps(body), "application/json")

    def _text(self, status: int, text: str, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        return


class FakeSupervisor:
    """Starts an engine for every one that is declared, and stops those that no longer are."""

    def __init__(self, home: Path) -> None:
        self._home = home
        (home / "logs").mkdir()
        self.running: dict[str, Vllm] = {}
        self.take_adapters = True
        self.dying: set[str] = set()
        self.ends = 0

    def look(self) -> None:
        wanted = {one.release: one for one in engines.read(self._home)}
        for release, one in list(self.running.items()):
            if release not in wanted or wanted[release].port != one.server_port:
                self.running.pop(release).stop()
        for release in wanted.keys() & self.dying:
            self.ends += 1
            engines.note_end(self._home, engines.name(release))
        for release in wanted.keys() - self.running.keys() - self.dying:
            self.running[release] = Vllm(
                wanted[release].port, base=release, adapters=self.take_adapters
            )

    def close(self) -> None:
        engines.write(self._home, [])
        self.look()


@contextmanager
def vllm(**more: Any) -> Iterator[Vllm]:
    server = Vllm(**more)
    try:
        yield server
    finally:
        server.stop()
