"""`ingest run | sweep | status`. Builds the settings once and hands them down; knows no file."""

import json
import logging
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ingest.limits import sentence
from ingest.service import Service
from ingest.settings import IngestSettings
from ingest.worker import Worker
from kb.catalog import DEFAULT, Catalog, Listed
from kb.embedders import Embedders
from kb.embedding import Embedder
from kb.errors import BadConfiguration, BadData, VademecumError
from kb.layout import DATABASE
from kb.ledger import Ledger
from kb.locks import INGEST, exclusive
from kb.settings import Configuration, KbSettings, load
from kb.store import Store
from kb.unwatched import lack, unwatched

log = logging.getLogger("ingest")

app = typer.Typer(
    help="Keeps knowledge bases true to their folders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OneKb = Annotated[str | None, typer.Option("--kb", help="Only this knowledge base.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def run() -> None:
    """Follow the folders of every knowledge base until stopped."""
    configuration = load()
    stop = _stop_on_signals()
    with _prepared(configuration) as (catalog, embedder, others, kb_settings, settings):
        service = Service(catalog, embedder, kb_settings, settings, stop, others=others)
        service.run(on_ready=lambda: log.info("ingest ready"))


@app.command()
def sweep() -> None:
    """Compare the folders with what is known, take over the changes, and end."""
    configuration = load()
    stop = _stop_on_signals()
    with _prepared(configuration) as (catalog, embedder, others, kb_settings, settings):
        for listed in _whole(catalog.all()):
            uploads = catalog.uploads(listed.name)
            worker = Worker(listed, uploads, embedder, kb_settings, settings, stop, others=others)
            worker.complete()
            if stop.is_set():
                raise typer.Exit(1)
        if any(_status(listed)["failed"] for listed in _whole(catalog.all())):
            log.warning("some files failed; `ingest status` names them")


@app.command()
def status(kb: OneKb = None, as_json: AsJson = False) -> None:
    """How many files are in which state, why files failed, and what is not watched live."""
    configuration = load()
    every = configuration.section("ingest", IngestSettings).sweep_seconds
    catalog = Catalog(configuration.home)
    listed = [catalog.get(kb)] if kb else catalog.all()
    report = [_status(one) for one in _whole(listed)]
    if as_json:
        print(json.dumps({"knowledge_bases": report}, ensure_ascii=False, indent=2))
        return
    for one in report:
        counts = ", ".join(f"{n} {state}" for state, n in one["files"].items()) or "no files"
        print(f"{one['name']}: {counts}; {one['documents']} documents, {one['chunks']} passages")
        for root, folders in one["unwatched"].items():
            print(f"  {sentence(root, folders, one['unwatched_lack'], every)}")
        for failed in one["failed"]:
            print(f"  {failed['filename']}: {failed['message']} [{failed['code']}]")


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 3 bad configuration, data or usage."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(threadName)s %(message)s",
    )
    for chatty in ("httpx", "sentence_transformers", "watchdog"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Watchdog warns when it meets a moved directory twice; it then does the right thing.
    warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
    try:
        app()
    except (BadConfiguration, BadData) as error:
        log.error("%s", error)
        sys.exit(3)
    except VademecumError as error:
        log.error("%s", error)
        sys.exit(1)
    except SystemExit as exit_:
        # Typer ends with 2 for a wrong command line; here 2 means that the gate said no.
        sys.exit(3 if exit_.code == 2 else exit_.code)


Prepared = tuple[Catalog, Embedder, Embedders, KbSettings, IngestSettings]


@contextmanager
def _prepared(configuration: Configuration) -> Iterator[Prepared]:
    """Hold the home, have an embedder, and have a knowledge base at all."""
    kb_settings = configuration.section("kb", KbSettings)
    settings = configuration.section("ingest", IngestSettings)
    home = configuration.home
    with exclusive(home / INGEST, f"the home {home.name}"):
        embedders = Embedders(kb_settings, home)
        embedder = embedders.today()
        catalog = Catalog(home)
        catalog.clear()
        catalog.migrate()
        if not catalog.all():
            docs = home / "docs"
            docs.mkdir(exist_ok=True)
            catalog.add(DEFAULT, embedder.name, int(time.time()), watch=docs)
        yield catalog, embedder, embedders, kb_settings, settings


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _whole(listed: list[Listed]) -> list[Listed]:
    """Those that can be opened; what is wrong with the others is said."""
    for one in listed:
        if one.problem:
            log.error("knowledge base %s is left out: %s", one.name, one.problem)
    return [one for one in listed if not one.problem]


def _status(listed: Listed) -> dict[str, Any]:
    store = Store(listed.folder / DATABASE, readonly=True)
    try:
        ledger = Ledger(store)
        failed = [
            {"file_id": f.id, "filename": f.path, "code": f.error_code, "message": f.error_message}
            for f in ledger.all()
            if f.status == "failed"
        ]
        counts = store.counts()
        return {
            "id": listed.id,
            "name": listed.name,
            "watched": list(listed.watched),
            "generation": store.generation(),
            "files": ledger.counts(),
            "documents": counts["documents"],
            "chunks": counts["chunks"],
            "failed": failed,
            "unwatched": unwatched(store),
            "unwatched_lack": lack(store),
        }
    finally:
        store.close()


if __name__ == "__main__":
    main()
