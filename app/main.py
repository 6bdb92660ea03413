"""The server as an ASGI application: everything is handed in, nothing is read from anywhere.

Knows which routes there are and in which order a request meets gate and limits.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from app import errors
from app.auth import Keys
from app.batches import Batches
from app.feedback import Feedback
from app.gate import Gate
from app.knowledge import KnowledgeBases
from app.limits import BodyLimit, Places
from app.metrics import Metrics
from app.parts import Parts
from app.releases import Releases
from app.routes import (
    admin,
    batches,
    chat,
    embeddings,
    feedback,
    files,
    health,
    models,
    page,
    store_files,
    vector_stores,
)
from app.settings import AppSettings
from app.uploads import Uploads

_ROOMS = (
    chat, feedback, models, embeddings, files, vector_stores, store_files, batches, admin, health,
    page,
)  # fmt: skip
_MANY = re.compile(r"/v1/vector_stores/[^/]+/upload")
_FILES_AT_ONCE = 16
_BODY_BYTES = 2_000_000
_MB = 2**20


def create_app(
    settings: AppSettings, *, kb: KnowledgeBases, releases: Releases, keys: Keys
) -> FastAPI:
    """The application. It closes `kb` and all engines when it ends."""
    uploads = Uploads(kb.catalog.home / "uploads")
    together = Batches(kb.catalog.home / "uploads" / ".batches")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(uploads.sweep)
        await releases.open()
        yield
        await releases.close()
        await releases.lineup.close()
        await run_in_threadpool(kb.close)

    app = FastAPI(title="Vademecum", lifespan=lifespan, docs_url=None, redoc_url=None)
    places = Places(settings.max_waiting)
    told = Feedback(kb.catalog.home / "feedback")
    app.state.parts = Parts(settings, kb, releases, uploads, together, places, Metrics(), told)
    errors.install(app)
    for room in _ROOMS:
        app.include_router(room.router)
    # The last added is met first: who asks is settled before a body is read.
    app.add_middleware(BodyLimit, most=_most_bytes(settings.max_upload_mb))
    app.add_middleware(Gate, keys=keys, host=settings.host)
    return app


def _most_bytes(max_upload_mb: int) -> Callable[[str], int]:
    """How much a path takes: one file with its form, several, or a JSON body. A file's own limit
    is checked as well, by `app.receive`."""
    one = max_upload_mb * _MB + 64 * 1024

    def most(path: str) -> int:
        if path == "/v1/files":
            return one
        return _FILES_AT_ONCE * one if _MANY.fullmatch(path) else _BODY_BYTES

    return most
