"""`finetune release`, `promote`, `rollback` and `list`: from a judged run to what is served."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from finetune.cli_options import AsJson, Config, DryRun, Sets, load, would
from kb.errors import BadConfiguration

Url = Annotated[str, typer.Option(help="The running server; default http://127.0.0.1:8000.")]
Which = Annotated[str, typer.Argument(help="A release's id, or the configuration that made it.")]
Any_ = Annotated[Path | None, typer.Argument(help="Not needed; taken so that all commands agree.")]


def register(cli: typer.Typer) -> None:
    """Add this file's commands."""
    cli.command("release")(release)
    cli.command("promote")(promote)
    for name, do in (("rollback", rollback), ("list", list_)):
        cli.command(name, help=do.__doc__)(_of_no_run(do))


def _of_no_run(do: Callable[[str, bool, bool], None]) -> Callable[..., None]:
    """What a command that concerns no single run takes: the same as the others."""

    def command(
        config: Any_ = None,
        sets: Sets = None,
        url: Url = "",
        dry_run: DryRun = False,
        as_json: AsJson = False,
    ) -> None:
        do(url, dry_run, as_json)

    return command


def release(
    config: Config,
    sets: Sets = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also if the gate said no; the manifest says so.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a release of a judged run; exit 2 if the gate said no."""
    from finetune.release import make, ready
    from kb.release import folder
    from kb.settings import KbSettings
    from kb.settings import load as load_house

    settings, house = load(config, sets), load_house()
    kb, home = house.section("kb", KbSettings), house.home
    if dry_run:
        manifest, _ = ready(settings, kb, home, force=force)
        would("release", as_json, folder=folder(home, manifest.id), gate=manifest.gate.why)
        return
    made = make(settings, kb, home, force=force)
    if as_json:
        typer.echo(made.model_dump_json())
    else:
        size = sum(f.stat().st_size for f in folder(home, made.id).rglob("*") if f.is_file())
        typer.echo(f"{folder(home, made.id)} ({size / 1e6:.1f} MB), {len(made.files)} files")
        typer.echo(f"gate: {'passed' if made.gate.passed else 'NOT PASSED'}: {made.gate.why}")


def promote(
    which: Which,
    sets: Sets = None,
    url: Url = "",
    force: Annotated[bool, typer.Option("--force", help="Although its gate said no.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let the running server answer with a release; answered when it does."""
    name = _name(which, sets or ())
    if dry_run:
        would("promote", as_json, release=name)
        return
    with _server(url) as server:
        _print(server.promote(name, force=force), as_json)


def rollback(url: str, dry_run: bool, as_json: bool) -> None:
    """Serve again what was served before."""
    with _server(url) as server:
        if dry_run:
            would("rollback", as_json, current=server.list()["current"])
            return
        _print(server.rollback(), as_json)


def list_(url: str, dry_run: bool, as_json: bool) -> None:
    """Releases: of the folder, or with --url as the running server sees them."""
    if url:
        with _server(url) as server:
            _print(server.list(), as_json)
        return
    from kb import release as releases
    from kb.settings import load as load_house

    home = load_house().home
    current = releases.current(home)
    rows: list[dict[str, Any]] = [{"id": "base", "state": "current" if current == "base" else ""}]
    for one in releases.listed(home):
        row: dict[str, Any] = {"id": one.id, "state": "current" if one.id == current else ""}
        if one.manifest:
            passed = one.manifest.gate.passed
            row |= {"kind": one.manifest.kind, "created": one.manifest.created, "passed": passed}
        else:
            row["problem"] = one.problem
        rows.append(row)
    _print({"object": "list", "current": current, "data": rows}, as_json)


def _server(url: str) -> Any:
    from finetune.server import URL, Releases

    return Releases(url or URL, os.environ.get("VADEMECUM_KEY", ""))


def _name(which: str, sets: Sequence[str]) -> str:
    if not which.endswith((".yaml", ".yml")):
        return which

    file = Path(which)
    if not file.is_file():
        raise BadConfiguration(f"{which}: is not there")
    return load(file, sets).release.name


def _print(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    for row in told["data"]:
        # The server tells figures and the gate's reasons too: --json shows them.
        short = {"passed": row["gate"]["passed"], **row} if "gate" in row else row
        left_out = ("id", "state", "metrics", "gate")
        said = [f"{k} {v}" for k, v in short.items() if k not in left_out and v is not None]
        mark = "*" if row["id"] == told["current"] else " "
        typer.echo(f"{mark} {row['id']:24} {row.get('state') or '':10} {', '.join(said)}".rstrip())
