"""The `vademecum` command line: up, ask, models, and the groups kb, keys and eval.

Decodes, calls, prints. With --json, standard output holds one JSON document and nothing else;
messages go to standard error. Exit codes: 0 done, 1 failed, 3 bad configuration, data or usage.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from app.cli_eval import evaluations
from app.cli_kb import bases
from app.cli_keys import keys
from app.output import AsJson, say, show
from app.settings import AppSettings
from kb.catalog import Catalog
from kb.errors import BadConfiguration, BadData, ModelNotFound, VademecumError
from kb.models import BUNDLED, PREFIX, installed, is_complete
from kb.settings import load

cli = typer.Typer(
    help="An assistant for one field of knowledge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.add_typer(bases, name="kb")
cli.add_typer(keys, name="keys")
cli.add_typer(evaluations, name="eval")


@cli.command()
def up(
    home: Annotated[Path | None, typer.Option(help="Where state lives.")] = None,
    port: Annotated[int | None, typer.Option(help="The server's port.", min=0, max=65535)] = None,
) -> None:
    """Start engine, ingest and server; stop them with Ctrl-C. Prints `ready URL` when it is."""
    from app.up import up as run

    # Through the environment, so that the children see the same.
    if home is not None:
        os.environ["VADEMECUM_HOME"] = str(home.expanduser().resolve())
    if port is not None:
        os.environ["VADEMECUM_APP__PORT"] = str(port)
    raise typer.Exit(run(load()))


@cli.command()
def ask(
    question: str,
    kb: Annotated[str | None, typer.Option("--kb", help="Only this knowledge base.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the running server. A key, where one is needed, comes from VADEMECUM_KEY."""
    from app.ask import ask as send
    from app.children import server_url

    configuration = load()
    url = server_url(configuration.section("app", AppSettings))
    # Looked up here: a server tells nobody the names of knowledge bases.
    catalog = Catalog(configuration.home)
    stores = [catalog.get(kb).id if catalog.all() else kb] if kb else None
    key = os.environ.get("VADEMECUM_KEY", "")
    if as_json:
        show(send(url, question, key=key, vector_store_ids=stores).report(), True)
        return

    def on_text(text: str) -> None:
        typer.echo(text, nl=False)

    answer = send(url, question, key=key, vector_store_ids=stores, on_text=on_text)
    typer.echo("\n")
    for line in answer.sources():
        typer.echo(line)


@cli.command()
def models(as_json: AsJson = False) -> None:
    """The bundled models, their licences, and whether they are unpacked."""
    folder = load().home / "models"
    rows = [
        {
            "name": PREFIX + model.name,
            "kind": model.kind,
            "licence": model.licence,
            "installed": installed(model) is not None,
            "unpacked": is_complete(folder / model.name),
            "description": model.description,
        }
        for model in BUNDLED.values()
    ]
    show(rows, as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. None: this process's own arguments. Always raises SystemExit."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        cli(arguments)
    except (BadConfiguration, BadData, ModelNotFound) as error:
        say(str(error))
        sys.exit(3)
    except VademecumError as error:
        say(str(error))
        sys.exit(1)
    except SystemExit as exit_:
        # Typer ends with 2 for a wrong command line; here 2 means that the gate said no.
        sys.exit(3 if exit_.code == 2 else exit_.code)


if __name__ == "__main__":
    main()
