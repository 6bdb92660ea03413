"""`vademecum keys`: who may reach the server, and what for."""

from typing import Annotated, Literal

import typer

from app.auth import Keys
from app.output import AsJson, say, show
from kb.catalog import Catalog
from kb.settings import load

keys = typer.Typer(help="Keys for the server.", no_args_is_help=True)
Scope = Literal["chat", "write", "admin"]


def _keys() -> Keys:
    return Keys(load().home / "keys.json")


@keys.command()
def create(
    name: str,
    scope: Annotated[Scope, typer.Option(help="What the key may do.")],
    kb: Annotated[list[str] | None, typer.Option("--kb", help="Only these.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once and never again."""
    catalog = Catalog(load().home)
    bound = [catalog.get(one).id for one in kb or ()]
    token = _keys().create(name, scope, bound)
    if as_json:
        show({"name": name, "scope": scope, "kb": bound, "key": token}, True)
        return
    say("keep this key; it is not shown again")
    typer.echo(token)


@keys.command("list")
def list_all(as_json: AsJson = False) -> None:
    """All keys, without the keys themselves."""
    rows = [
        {"name": k.name, "scope": k.scope, "kb": list(k.kbs), "created_at": k.created_at}
        for k in _keys().list()
    ]
    show(rows, as_json)


@keys.command()
def revoke(name: str, as_json: AsJson = False) -> None:
    """From now on the key opens nothing."""
    gone = _keys().revoke(name)
    show({"revoked": gone.name}, as_json)
