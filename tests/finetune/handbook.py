"""A small live knowledge base for the trainer's tests, in a home as the server makes it."""

from pathlib import Path

from finetune.bases import Bases
from kb.catalog import Catalog
from kb.embedding import Embedder
from kb.settings import KbSettings
from tests.kb.bases import Base

SETTINGS = KbSettings(embedder="fake:64")
NAME = "handbook"
TEXTS = {
    "pharmacy.md": "The Mill Lane pharmacy opens at 08:15 on weekdays. It closes at 18:40. On"
    " Saturdays the Mill Lane pharmacy closes at 13:15.",
    "dosing.md": "An adult takes 8 mg of Zelvorin at the start of treatment. The dose of Zelvorin"
    " is halved after 10 days.",
    "leave.md": "A nurse has 27 days of leave a year. Leave must be asked for in writing.",
    "fire.md": "The Assembly Point was moved to the south gate in 2019. Lifts are not to be used in"
    " a fire.",
    "records.md": "Patient records are kept for 30 years. The Records Office was founded in 1987.",
}


def fill(home: Path, embedder: Embedder | None = None) -> Base:
    """The writing side; close it."""
    Catalog(home).add(NAME, embedder.name if embedder else "fake-64", 0)
    base = Base(home / "kb" / NAME, embedder=embedder)
    for path, text in TEXTS.items():
        base.put(path, text)
    return base


def bases(home: Path) -> Bases:
    return Bases(home, SETTINGS, lambda message: None)
