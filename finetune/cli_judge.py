"""`finetune eval`, `doctor` and `plan`: a model is judged, a run before it starts, a machine."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli_options import AsJson, Config, DryRun, Sets, load
from kb.errors import BadConfiguration, BadData, GateClosed, TrainingStopped

Limit = Annotated[int | None, typer.Option(min=1, help="Items of each file at most.")]
Adapter = Annotated[Path | None, typer.Option(help="Judge this folder, not the run's result.")]
EngineUrl = Annotated[str, typer.Option("--engine", help="Ask this OpenAI-compatible server.")]
BaseName = Annotated[str, typer.Option("--base", help="The base's name at the engine.")]
CandidateName = Annotated[str, typer.Option("--candidate", help="The candidate's name there.")]
Nothing = Annotated[bool, typer.Option("--dry-run", help="The same: doctor changes nothing.")]


def register(cli: typer.Typer) -> None:
    """Add this file's commands."""
    cli.command("eval")(evaluate)
    cli.command("doctor")(doctor)
    cli.command("plan")(plan)


def evaluate(
    config: Config,
    sets: Sets = None,
    limit: Limit = None,
    adapter: Adapter = None,
    engine: EngineUrl = "",
    base: BaseName = "",
    candidate: CandidateName = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Base against candidate, with retrieval on and off; exit 2 if the gate says no."""
    from finetune import evaluate as evaluating
    from finetune import judged, report, served
    from finetune.bases import Bases
    from kb.settings import KbSettings
    from kb.settings import load as load_house

    few = [f"eval.most={limit}"] if limit else []
    settings, house = load(config, [*(sets or ()), *few]), load_house()
    bases = Bases(house.home, house.section("kb", KbSettings), _say)
    asked = evaluating.items(settings, bases)
    if dry_run:
        served.look(settings, house.home)
        _show(asked.counts(), as_json)
        return
    names = judged.Names(engine, base or settings.model_name_or_path, candidate)
    models, about = judged.open_engines(settings, adapter, names, house.home, _say)
    done = evaluating.evaluate(settings, asked, models, _say)
    made = report.write(done, about | {"generation": asked.generation}, settings.output_dir)
    if as_json:
        typer.echo(json.dumps(made, ensure_ascii=False))
    else:
        typer.echo("\n".join(report.lines(done)))
    _say(f"{settings.output_dir / report.FOLDER / 'report.html'}")
    if not done.verdict.passed:
        raise GateClosed(f"the gate says no: {done.verdict.why}")


def doctor(
    config: Config,
    sets: Sets = None,
    engine: EngineUrl = "",
    engine_model: Annotated[str, typer.Option(help="The base's name at the engine.")] = "",
    dry_run: Nothing = False,
    as_json: AsJson = False,
) -> None:
    """Show rows as they will be trained, and what would go wrong; exit 3 if it is serious."""
    from finetune import base_model, device, served, showing
    from finetune.doctor import examine
    from finetune.inspection import HttpTokenize
    from kb.catalog import Catalog
    from kb.settings import load as load_house

    settings = load(config, sets)
    home = load_house().home
    served.look(settings, home)
    model = base_model.known(settings, home, _say)
    tokenize = HttpTokenize(engine, engine_model) if engine else None
    found = examine(settings, model, tokenize, device.machine(settings.bf16), Catalog(home))
    if tokenize is None:
        _say("tokens were not compared with an engine's: --engine URL does that")
    if as_json:
        typer.echo(json.dumps(showing.document(found), ensure_ascii=False))
    else:
        typer.echo(showing.diagnosis(found, colours=sys.stdout.isatty()))
    if found.serious:
        raise BadData(f"{len(found.serious)} serious; the first: {found.serious[0].text}")


def plan(
    config: Config,
    sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Run no steps: no time.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what the run should be, what it will take and how long; exit 3 if it cannot fit."""
    from finetune import base_model, device, showing
    from finetune import plan as planning
    from kb.settings import load as load_house

    settings, home = load(config, sets), load_house().home
    model = base_model.known(settings, home, _say)
    measure = None if dry_run else planning.measuring(home, _say)
    made = planning.plan(settings, model, device.machine(settings.bf16), measure)
    if as_json:
        typer.echo(json.dumps(showing.plan_document(made), ensure_ascii=False))
    else:
        typer.echo(showing.plan(made))
    if made.too_little:
        raise BadConfiguration(made.too_little)
    if made.failed:
        raise TrainingStopped(made.failed)


def _show(counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(counts))
    else:
        typer.echo("\n".join(f"{name}: {count} items" for name, count in counts.items()))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
