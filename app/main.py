"""The server as an ASGI application: everything is handed in, nothing is read from anywhere.

Knows which routes there are and in which order a request meets gate and limits.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from app import errors
from app.answer import Answerer
from app.auth import Keys
from app.engine import Engine
from app.gate import Gate
from app.knowledge import KnowledgeBases
from app.limits import BodyLimit, Places
from app.metrics import Metrics
from app.parts import Parts
from app.routes import chat, embeddings, files, health, models, page, store_files, vector_stores
from app.settings import AppSettings
from app.uploads import Uploads

_UPLOADS = re.compile(r"/v1/files|/v1/vector_stores/[^/]+/upload")
_BODY_BYTES = 2_000_000
_MB = 2**20


def create_app(
    settings: AppSettings, *, kb: KnowledgeBases, engine: Engine, answerer: Answerer, keys: Keys
) -> FastAPI:
    """The application. It closes `kb` and `engine` when it ends."""
    uploads = Uploads(kb.catalog.home / "uploads")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(uploads.sweep)
        yield
        await engine.close()
        await run_in_threadpool(kb.close)

    app = FastAPI(title="Vademecum", lifespan=lifespan, docs_url=None, redoc_url=None)
    places = Places(settings.max_waiting)
    app.state.parts = Parts(settings, kb, engine, answerer, uploads, places, Metrics())
    errors.install(app)
    for room in (chat, models, embeddings, files, vector_stores, store_files, health, page):
        app.include_router(room.router)
    # The last added is met first: who asks is settled before a body is read. An upload may hold
    # several files; each is checked by itself as well.
    most_upload = 16 * settings.max_upload_mb * _MB
    app.add_middleware(BodyLimit, most=_BODY_BYTES, most_upload=most_upload, uploads=_UPLOADS)
    app.add_middleware(Gate, keys=keys, host=settings.host)
    return app
