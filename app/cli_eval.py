"""`vademecum eval`: how good and how fast, on test collections."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from app.output import AsJson, say, show
from app.settings import AppSettings
from kb.settings import KbSettings, load

evaluations = typer.Typer(help="Measure quality and speed.", no_args_is_help=True)


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


@evaluations.command()
def grounding(
    items: Annotated[Path, typer.Argument(help="JSONL: question, passages, answers, kind.")],
    url: Annotated[str | None, typer.Option(help="Another server than this home's.")] = None,
    model: Annotated[str, typer.Option(help="A release by id, or the base.")] = "vademecum",
    limit: Annotated[
        int | None, typer.Option(help="Only so many of each kind and language.", min=1)
    ] = None,
    language: Annotated[str | None, typer.Option(help="Only this one: en or zh.")] = None,
    concurrency: Annotated[int, typer.Option(help="Items under way at once.", min=1, max=64)] = 4,
    as_json: AsJson = False,
) -> None:
    """How true the running server stays to its passages: right answers, citations, refusals."""
    from app.children import server_url
    from app.eval_grounding import ask_all, sample
    from app.grounding import read, report, table

    configuration = load()
    url = url or server_url(configuration.section("app", AppSettings))
    chosen = sample(read(items, language), limit)
    key = os.environ.get("VADEMECUM_KEY", "")
    began = time.monotonic()
    replies = ask_all(url, chosen, model=model, key=key, concurrency=concurrency, tell=say)
    figures = report(chosen, replies)
    if as_json:
        seconds = round(time.monotonic() - began, 1)
        show(figures | {"items": len(chosen), "model": model, "seconds": seconds}, True)
    else:
        show(table(figures), False)
