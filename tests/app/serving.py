"""A server over a real home with a fake engine, and the writing side that ingest would be.

Nothing of the server is patched: SQLite, tantivy and FAISS are real; only the weights are not.
"""

import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from app import fit
from app.answer import Answerer
from app.auth import Keys
from app.engine import Delta, Engine, FakeEngine, Message
from app.engines import at_start
from app.knowledge import KnowledgeBases
from app.launch import FakeLauncher
from app.lineup import Serving
from app.main import create_app
from app.profile import Profile
from app.releases import Releases
from app.settings import AppSettings, EngineSettings
from kb.catalog import Catalog
from kb.chunking import chunk
from kb.embedding import FakeEmbedder
from kb.errors import EngineDown
from kb.feed import Feed
from kb.layout import DATABASE, lexical_of
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.locks import WRITER, exclusive
from kb.manifest import Manifest
from kb.records import Parsed
from kb.settings import KbSettings
from kb.store import Store, context
from tests.kb.releases import BASE as BASE_MODEL

HERE = "http://127.0.0.1:8000"
HOURS = (
    "# Pharmacy hours\n\nThe pharmacy opens at 8:15 on weekdays. The pharmacy closes at 18:40.\n\n"
    "# Parcels\n\nParcels for the ward arrive on Tuesday with the blue van."
)
QUESTION = "When does the pharmacy open on weekdays?"
ANSWER = "The pharmacy opens at 8:15 on weekdays. Owls fly by night."


class Breaking(FakeEngine):
    """Goes down in the middle of its answer."""

    async def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        yield Delta("The pharmacy opens at 8:15 on weekdays. And")
        raise EngineDown("the language model broke off")


class Broken(FakeEngine):
    """Fails in a way that nobody foresaw, in the middle of its answer."""

    async def stream(
        self, messages: Sequence[Message], options: Mapping[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        yield Delta("The pharmacy opens at 8:15 on weekdays. And")
        raise RuntimeError("/srv/secret/place is on fire")


class Home:
    """A home with knowledge base `handbook`, and a server over it."""

    def __init__(
        self,
        path: Path,
        engine: FakeEngine | None = None,
        settings: AppSettings | None = None,
        engines: Mapping[str, FakeEngine] | None = None,
    ) -> None:
        self.path = path
        self.embedder = FakeEmbedder()
        self.kb = KbSettings(embedder="fake:64")
        self.catalog = Catalog(path)
        self.keys = Keys(path / "keys.json")
        self.engine = engine or FakeEngine(ANSWER)
        self.settings = settings or AppSettings(evidence=0.0)
        self.handbook = self.add("handbook")
        self.bases = KnowledgeBases(self.catalog, self.embedder, KbSettings())
        self.launcher = FakeLauncher(self.engine, engines or {})
        self.releases = self.resumed()
        self.client = TestClient(self.app(), base_url=HERE, raise_server_exceptions=False)

    def app(self) -> FastAPI:
        return create_app(
            self.settings,
            kb=self.bases,
            releases=self.releases,
            keys=self.keys,
        )

    def serve(self, manifest: Manifest | None, engine: Engine) -> Serving:
        asks = manifest.serving if manifest else None
        profile = Profile.of(EngineSettings(model="org/large"), self.settings, asks)
        return Serving(manifest, engine, Answerer(engine, profile))

    def resumed(self, keep_seconds: float = 3600.0, stall_seconds: float = 300.0) -> Releases:
        """The releases as a server that starts now finds them."""
        return Releases(
            self.path,
            self.launcher,
            self.serve,
            lambda manifest: fit.misfits(manifest, model=BASE_MODEL, weights_in="", kb=self.kb),
            current=at_start(self.path, EngineSettings(), self.kb, print),
            keep_seconds=keep_seconds,
            stall_seconds=stall_seconds,
        )

    def add(self, name: str) -> str:
        """Make a knowledge base that follows a folder; its id."""
        docs = self.path / f"docs-{name}"
        docs.mkdir(exist_ok=True)
        return self.catalog.add(name, self.embedder.name, 1, docs).id

    def docs(self, name: str = "handbook") -> Path:
        return self.path / f"docs-{name}"

    def write(self, file: str, text: str, name: str = "handbook") -> str:
        """A file appears in the watched folder and is read; its id."""
        path = self.docs(name) / file
        path.write_text(text, encoding="utf-8")
        return self._read(name, str(self.docs(name)), file, text)

    def take_in(self, name: str = "handbook") -> None:
        """What ingest does with uploads: new ones are read, those that are gone are forgotten."""
        root = self.catalog.uploads(name)
        found = {p.parent.name: p for p in root.glob("file-*/*")}
        for file_id, path in found.items():
            text = path.read_text(encoding="utf-8")
            self._read(name, str(root), f"{file_id}/{path.name}", text, file_id)
        store = Store(self.catalog.get(name).folder / DATABASE)
        ledger = Ledger(store)
        for row in ledger.all(str(root)):
            if row.id not in found:
                ledger.forget(row)
        store.close()

    def fail(self, file_id: str, filename: str, name: str = "handbook") -> None:
        """Ingest cannot read an upload."""
        root = str(self.catalog.uploads(name))
        store = Store(self.catalog.get(name).folder / DATABASE)
        ledger = Ledger(store)
        file = ledger.changed(root, f"{file_id}/{filename}", file_id=file_id)
        ledger.failed(file, "encrypted", f"{filename} has a password", size=1, mtime_ns=1)
        store.close()

    def _read(
        self, name: str, folder: str, path: str, text: str, file_id: str | None = None
    ) -> str:
        one = self.catalog.get(name)
        store = Store(one.folder / DATABASE)
        ledger = Ledger(store)
        file = ledger.changed(folder, path, file_id=file_id)
        pieces = chunk(text, 60)
        vectors = self.embedder.passages([f"{context(path, p.heading)}\n{p.text}" for p in pieces])
        store.put_document(file.id, "0" * 64, Parsed(text, path), pieces, vectors)
        index = LexicalIndex(lexical_of(store), readonly=False)
        index.catch_up(Feed(store).changes(max(index.generation, 0)))
        index.close()
        ledger.completed(file, size=len(text.encode()), mtime_ns=1)
        store.close()
        return file.id

    @contextmanager
    def followed(self, name: str = "handbook") -> Iterator[None]:
        """As while ingest runs."""
        with exclusive(self.catalog.get(name).folder / WRITER, name):
            yield

    def ask(self, question: str = QUESTION, **fields: Any) -> Response:
        body = {"model": "vademecum", "messages": [{"role": "user", "content": question}], **fields}
        return self.client.post("/v1/chat/completions", json=body)

    def upload(self, name: str, content: bytes | str = HOURS, **more: Any) -> Response:
        """The one-step upload of one file."""
        return self.client.post(
            f"/v1/vector_stores/{self.handbook}/upload", files={"file": (name, content)}, **more
        )

    def close(self) -> None:
        self.client.close()
        self.bases.close()


def chunks(text: str) -> list[dict[str, Any]]:
    """The chunks of a streamed reply, which must end as OpenAI's do."""
    lines = [line for line in text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def error(reply: Response, status: int, code: str) -> dict[str, Any]:
    """The error of a reply, which must have this status, code and OpenAI's shape."""
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "code", "param"}
    assert body["error"]["code"] == code and body["error"]["message"]
    found: dict[str, Any] = body["error"]
    return found


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The application behind a real uvicorn on a free port; its URL."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(10)
