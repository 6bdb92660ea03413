"""`vademecum kb`: make, look into, check and remove knowledge bases."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from app.output import AsJson, say, show
from kb.catalog import Catalog, Listed
from kb.compact import dead
from kb.layout import DATABASE, lexical_of
from kb.ledger import Ledger
from kb.lexical import LexicalIndex
from kb.remake import progress
from kb.settings import KbSettings, load
from kb.store import Store

bases = typer.Typer(help="Knowledge bases.", no_args_is_help=True)


@bases.command("list")
def list_all(as_json: AsJson = False) -> None:
    """What exists, with ids and watched folders."""
    show([_row(one) for one in Catalog(load().home).all()], as_json)


@bases.command()
def add(
    name: str,
    watch: Annotated[Path | None, typer.Option(help="A folder to follow.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an empty knowledge base; a running ingest takes it up within a second."""
    configuration = load()
    embedder = configuration.section("kb", KbSettings).embedder_identity
    one = Catalog(configuration.home).add(name, embedder, int(time.time()), watch)
    show(_row(one), as_json)


@bases.command()
def remove(name: str, as_json: AsJson = False) -> None:
    """Forget a knowledge base and its uploads. Watched folders are not touched."""
    show(_row(Catalog(load().home).remove(name)), as_json)


@bases.command()
def search(
    name: str,
    query: str,
    k: Annotated[int, typer.Option("-k", help="How many passages.", min=1, max=100)] = 8,
    as_json: AsJson = False,
) -> None:
    """The best passages for a query, straight from the knowledge base."""
    from kb.embedders import Embedders
    from kb.search import KnowledgeBase

    configuration = load()
    settings = configuration.section("kb", KbSettings)
    one = Catalog(configuration.home).get(name)
    embedders = Embedders(settings, configuration.home)
    kb = KnowledgeBase(one.folder, embedders(one.embedder), settings, embedders)
    found = kb.search(query, k)
    kb.close()
    hits = [
        {
            "filename": hit.filename,
            "page": hit.chunk.page,
            "score": round(hit.score, 4),
            "start": hit.chunk.start,
            "end": hit.chunk.end,
            "text": hit.chunk.text,
        }
        for hit in found.hits
    ]
    if as_json:
        show({"generation": found.generation, "hits": hits}, True)
        return
    for hit in hits:
        page = f", page {hit['page']}" if hit["page"] else ""
        typer.echo(f"{hit['score']:8.4f}  {hit['filename']}{page}\n{hit['text']}\n")


@bases.command()
def stats(name: str, as_json: AsJson = False) -> None:
    """Documents, passages, files by state, generations, bytes on disk, and what is dead in them."""
    one = Catalog(load().home).get(name)
    show(_stats(one), as_json)


@bases.command()
def verify(name: str, as_json: AsJson = False) -> None:
    """Check that text, passages, vectors and index agree. Exit code 1 if they do not."""
    from kb.verify import verify as check

    problems = check(Catalog(load().home).get(name))
    if as_json:
        show({"clean": not problems, "problems": problems}, True)
    else:
        typer.echo("\n".join(problems) or "clean")
    if problems:
        raise typer.Exit(1)


@bases.command()
def rebuild(name: str, as_json: AsJson = False) -> None:
    """Make the indexes anew from the database; with another embedder or chunker than it was made
    with, the passages too. Questions are answered meanwhile. A running ingest is asked to do it."""
    from kb.embedders import Embedders
    from kb.remake import wanted
    from kb.renewal import rebuild as work

    configuration = load()
    settings = configuration.section("kb", KbSettings)
    one = Catalog(configuration.home).get(name)
    embedders = Embedders(settings, configuration.home)
    generation = work(one, wanted(settings.embedder_identity, settings), embedders, say)
    say(f"the indexes of {name} are new")
    show({"generation": generation}, as_json)


@bases.command()
def compact(name: str, as_json: AsJson = False) -> None:
    """Remove from the disk what was deleted or replaced, now. Ingest must not be running; while it
    runs, it does so by itself when idle."""
    from kb.compact import compact as work

    removed = work(Catalog(load().home).get(name), time.time)
    say(f"what was dead in {name} is no longer on disk")
    show(removed, as_json)


def _row(one: Listed) -> dict[str, Any]:
    return {
        "name": one.name,
        "id": one.id,
        "watched": list(one.watched),
        "problem": one.problem,
    }


def _stats(one: Listed) -> dict[str, Any]:
    store = Store(one.folder / DATABASE, readonly=True)
    try:
        return {
            "name": one.name,
            "id": one.id,
            "embedder": store.meta("embedder"),
            "generation": store.generation(),
            "lexical_generation": LexicalIndex(lexical_of(store)).generation,
            **store.counts(),
            **dead(store),
            "remaking": progress(store),
            "files": Ledger(store).counts(),
            "bytes": sum(f.stat().st_size for f in one.folder.rglob("*") if f.is_file()),
        }
    finally:
        store.close()
