"""What the routes work with, handed in once by `create_app`."""

from dataclasses import dataclass

from fastapi import Request

from app.batches import Batches
from app.feedback import Feedback
from app.knowledge import KnowledgeBases
from app.limits import Places
from app.lineup import Lineup
from app.metrics import Metrics
from app.releases import Releases
from app.settings import AppSettings
from app.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Parts:
    """One server's parts."""

    settings: AppSettings
    kb: KnowledgeBases
    releases: Releases
    uploads: Uploads
    batches: Batches
    places: Places
    metrics: Metrics
    feedback: Feedback

    @property
    def lineup(self) -> Lineup:
        """Who answers."""
        return self.releases.lineup


def parts(request: Request) -> Parts:
    """The parts of the server that got this request."""
    found: Parts = request.app.state.parts
    return found
