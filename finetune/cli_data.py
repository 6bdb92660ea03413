"""`finetune data`: reads settings, opens what rows are made from, prints the account."""

import json
import sys
from typing import Any

import typer

from finetune.cli_options import AsJson, Config, DryRun, Sets, load


def register(cli: typer.Typer) -> None:
    """Add this file's command."""
    cli.command("data")(data)


def data(
    config: Config,
    sets: Sets = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make rows from files and knowledge bases, clean and mix them: OUTPUT_DIR/data."""
    from finetune.bases import Bases
    from finetune.dataset import prepare
    from finetune.perplexity import Perplexity
    from kb.settings import KbSettings
    from kb.settings import load as load_house

    settings = load(config, sets)
    house = load_house()
    bases = Bases(house.home, house.section("kb", KbSettings), _say)
    limit = settings.data.perplexity_outliers
    outliers = Perplexity(settings.model_name_or_path, limit, house.home) if limit else None
    account = prepare(settings, bases, _say, outliers=outliers, dry_run=dry_run)
    typer.echo(json.dumps(account, ensure_ascii=False, indent=2) if as_json else told(account))


def told(account: dict[str, Any]) -> str:
    """The account for people: sources, what was dropped, the mix, what came out."""
    lines = [f"{'source':32} {'role':8} {'rows':>7} {'kept':>7} {'taken':>7}"]
    taken = account["mix"]["sources"]
    lines += [
        f"{s['name']:32.32} {s['role']:8} {s['rows']:7} {s['kept']:7}"
        f" {taken.get(s['name'], {}).get('taken', 0):7}"
        for s in account["sources"]
    ]
    for reason, one in account["dropped"].items():
        lines.append(f"dropped {one['count']:6}  {reason}")
        lines += [f"                  {sample}" for sample in one["samples"][:1]]
    for role, one in account["mix"]["roles"].items():
        asked = "all" if one["asked"] is None else f"{one['asked']:.1%}"
        lines.append(f"{role:8} asked {asked:>6}, got {one['share']:6.1%} ({one['taken']} rows)")
    lines += [f"{count:7} rows of {ability}" for ability, count in account["abilities"].items()]
    rows = account["rows"]
    lines.append(f"{rows['train']} rows to train on, {rows['val']} held out")
    if "domain" in account["mix"]["roles"] and not account["field_held_out"]:
        lines.append("none of the field held out: no loss of it says when to stop")
    return "\n".join(lines)


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
