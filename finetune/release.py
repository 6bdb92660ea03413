"""A trained and judged run -> a release folder: what it is, what it was made of, what was measured.

The judgement must be of these very weights, beside these of the base, in this prompt. The manifest
is written last (`kb.release`). Knows no server: promoting is `finetune.server`'s.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune import candidates, report, runs, servable
from finetune.candidates import Candidate
from finetune.settings import TrainSettings
from kb import chunking
from kb import release as releases
from kb.errors import AlreadyExists, BadConfiguration, BadData, GateClosed
from kb.manifest import Adapter, Base, Chunker, Gate, Manifest, Serving, Source
from kb.models import locate, shown
from kb.prompt import PROMPT_VERSION
from kb.settings import KbSettings

EVIDENCE = 0.15
"""Where the configuration says nothing: what the server asks of a model that was not tuned."""
UNSTATED = "not stated"
_REPORTS = ("eval.json", "report.md", "report.html")


def make(settings: TrainSettings, kb: KbSettings, home: Path, *, force: bool = False) -> Manifest:
    """Write `home/releases/NAME`. `force` writes one that the gate refused; its manifest says so.

    Raises as `ready` does.
    """
    manifest, candidate = ready(settings, kb, home, force=force)
    with _contents(settings, candidate) as contents:
        return releases.write(home, manifest, contents)


def ready(
    settings: TrainSettings, kb: KbSettings, home: Path, *, force: bool = False
) -> tuple[Manifest, Candidate]:
    """What would be released; nothing is written.

    Raises GateClosed, BadData (not trained, not judged, judged by a server, with other weights or
    another prompt, an adapter that no engine takes), BadConfiguration for a name that cannot be one
    or a reward model, AlreadyExists.
    """
    candidate = candidates.of_run(settings)
    _must_be_servable(settings, candidate)
    judged = report.read(settings.output_dir)
    base_files = candidates.base_files(locate(settings.model_name_or_path, home))
    _must_be_of(judged, candidate, base_files, settings)
    gate = Gate(passed=judged["gate"]["passed"], why=judged["gate"]["why"])
    if not gate.passed and not force:
        raise GateClosed(f"the gate said no: {gate.why}")
    manifest = _manifest(settings, kb, candidate, judged, gate)
    if releases.folder(home, manifest.id).exists():
        raise AlreadyExists(f"there is a release {manifest.id!r} already")
    return manifest, candidate


def _must_be_servable(settings: TrainSettings, candidate: Candidate) -> None:
    """What an engine would refuse only when it is promoted is refused here."""
    if settings.stage == "rm":
        raise BadConfiguration("stage: a reward model answers nothing; there is nothing to serve")
    if not candidate.is_adapter:
        return
    for problem in servable.adapter(candidate.config, tokens=0, vocabulary=0):
        if problem.is_serious:
            raise BadData(f"{candidate.folder}: {problem.text}")


def _must_be_of(
    judged: Mapping[str, Any],
    candidate: Candidate,
    base_files: Mapping[str, str],
    settings: TrainSettings,
) -> None:
    """What was judged is what would be served, or BadData says what differs."""
    if "files" not in judged:
        raise BadData(
            f"{settings.output_dir}: was judged with --engine, and nobody knows which weights a"
            " server has; run `finetune eval` without it"
        )
    now = {
        "files": ("other weights or settings of them than it holds now", candidate.hashes()),
        "model": ("another base", shown(settings.model_name_or_path)),
        "base_files": ("other weights of the base than are here now", base_files),
        "prompt_version": (f"another prompt version than {PROMPT_VERSION}", PROMPT_VERSION),
        "context_tokens": ("another release.context_tokens", settings.room),
    }
    for key, (what, value) in now.items():
        if judged[key] != value:
            raise BadData(
                f"{settings.output_dir}: was judged with {what}; run `finetune eval` again"
            )


def _manifest(
    settings: TrainSettings,
    kb: KbSettings,
    candidate: Candidate,
    judged: Mapping[str, Any],
    gate: Gate,
) -> Manifest:
    run = _document(settings.output_dir / runs.DONE, "finetune train")
    wanted = settings.release
    account = run.get("data") or {}
    retrieval = account.get("retrieval")  # rows without passages fit whatever retrieves
    here = Chunker(tokens=kb.chunk_tokens, version=chunking.VERSION)
    try:
        return Manifest(
            id=wanted.name,
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            kind="adapter" if candidate.is_adapter else "merged",
            base=Base(name=settings.model_name_or_path, files=judged["base_files"]),
            adapter=_adapter(candidate.config) if candidate.is_adapter else None,
            prompt_version=PROMPT_VERSION,
            embedder=retrieval["embedder"] if retrieval else kb.embedder_identity,
            chunker=Chunker.model_validate(retrieval["chunker"]) if retrieval else here,
            serving=Serving(
                evidence=EVIDENCE if wanted.evidence is None else wanted.evidence,
                context_tokens=settings.room,
                quotes=wanted.quotes or 0,
            ),
            data=_sources(settings, run, account),
            revision=run["revision"],
            metrics=report.metrics(judged),
            gate=gate,
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadConfiguration(f"release.{key}: {first['msg']}") from error


def _adapter(config: Mapping[str, Any]) -> Adapter:
    targets = config.get("target_modules") or ()
    return Adapter(
        rank=config["r"],
        alpha=config["lora_alpha"],
        targets=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
    )


def _sources(
    settings: TrainSettings, run: Mapping[str, Any], account: Mapping[str, Any]
) -> tuple[Source, ...]:
    """What `account`, the data.json that the run was trained by, says was taken of each source; a
    data set that `finetune data` did not make is one."""
    if not account:
        name = settings.dataset.name if settings.dataset else "data"
        rows = run["rows"]
        return (Source(name=name, licence=UNSTATED, rows=rows["trained"], sha256=rows["sha256"]),)
    taken = account["mix"]["sources"]
    return tuple(
        Source(
            name=one["name"],
            licence=one["licence"] or UNSTATED,
            rows=taken.get(one["name"], {}).get("taken", 0),
            sha256=one["sha256"],
        )
        for one in account["sources"]
    )


@contextmanager
def _contents(settings: TrainSettings, candidate: Candidate) -> Iterator[dict[str, Path]]:
    """Name in the release -> file or folder. Of an adapter only what an engine reads, without the
    path of this machine that peft notes; answers stay behind: they quote data sets."""
    run = settings.output_dir
    with tempfile.TemporaryDirectory(prefix=".release-", dir=run) as made:
        part = Path(made) / releases.ADAPTER
        if candidate.is_adapter:
            part.mkdir()
            told = {
                **candidate.config,
                "base_model_name_or_path": shown(settings.model_name_or_path),
            }
            (part / candidates.ADAPTER_CONFIG).write_text(json.dumps(told, indent=2) + "\n")
            for name in releases.weights(candidate.folder):
                shutil.copyfile(candidate.folder / name, part / name)
        reports = Path(made) / report.FOLDER
        reports.mkdir()
        for name in _REPORTS:
            shutil.copyfile(run / report.FOLDER / name, reports / name)
        weights = (
            {releases.ADAPTER: part} if candidate.is_adapter else {releases.MODEL: candidate.folder}
        )
        yield {**weights, report.FOLDER: reports}


def _document(file: Path, made_by: str) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadData(f"{file}: is not there; run `{made_by}` first") from error
    except (OSError, ValueError) as error:
        raise BadData(f"{file}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise BadData(f"{file}: is no JSON object")
    return document
