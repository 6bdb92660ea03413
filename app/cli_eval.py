"""`vademecum eval`: how good and how fast, on test collections."""

from pathlib import Path
from typing import Annotated

import typer

from app.output import AsJson, say, show
from kb.settings import KbSettings, load

evaluations = typer.Typer(help="Measure quality and speed.", no_args_is_help=True)


@evaluations.callback()
def _group() -> None:
    """A group also while it has one command."""


@evaluations.command()
def retrieval(
    dataset: Annotated[Path, typer.Argument(help="A folder: corpus, queries, qrels.")],
    limit_queries: Annotated[
        int | None, typer.Option(help="Only so many queries, drawn at random.", min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """nDCG@10, recall@10 and speed of hybrid, dense and lexical search, side by side."""
    from app.eval_retrieval import evaluate, table
    from app.raw_speed import measure
    from kb.collection import read
    from kb.collection_kb import build
    from kb.embedding import open_embedder

    configuration = load()
    settings = configuration.section("kb", KbSettings)
    collection = read(dataset)
    embedder = open_embedder(settings, configuration.home)
    folder = build(collection, embedder, settings, configuration.home, say)
    measure(folder, collection.passages, embedder)
    report = evaluate(collection, folder, embedder, settings, limit_queries)
    if as_json:
        show(report, True)
    else:
        typer.echo(table(report))
