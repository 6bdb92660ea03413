"""What the routes work with, handed in once by `create_app`."""

from dataclasses import dataclass

from fastapi import Request

from app.answer import Answerer
from app.batches import Batches
from app.engine import Engine
from app.knowledge import KnowledgeBases
from app.limits import Places
from app.metrics import Metrics
from app.settings import AppSettings
from app.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Parts:
    """One server's parts."""

    settings: AppSettings
    kb: KnowledgeBases
    engine: Engine
    answerer: Answerer
    uploads: Uploads
    batches: Batches
    places: Places
    metrics: Metrics


def parts(request: Request) -> Parts:
    """The parts of the server that got this request."""
    found: Parts = request.app.state.parts
    return found
