"""An evaluation -> eval.json, report.md, report.html and answers.jsonl of a run's folder.

    OUTPUT_DIR/eval/report.md, report.html, answers.jsonl    for people
    OUTPUT_DIR/eval/eval.json    every figure and the verdict; written last, so that all is there

`read` gives eval.json back to whoever releases. Knows nothing of models or items.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune import plots
from finetune.compare import Compared
from finetune.evaluate import Evaluation
from finetune.gate import Beside, figures
from kb.durable import replace
from kb.errors import BadData
from kb.manifest import BASE

FOLDER = "eval"
DOCUMENT = "eval.json"
FORMAT = 2
_HEAD = ("measure", "items", "base", "candidate", "difference", "interval", "p")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.25rem .7rem;border-bottom:1px solid #ddd;"
    "text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
    ".no{color:#b42318}.yes{color:#1a7f37}"
)


def document(evaluation: Evaluation, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything measured, and `about`: what was evaluated with what."""
    return {
        "format": FORMAT,
        **about,
        "base": evaluation.base,
        "candidate": evaluation.candidate,
        "against": evaluation.beside.id if evaluation.beside else BASE,
        "gate": evaluation.verdict.report(),
        "measures": [c.report() for c in evaluation.compared],
        "beside": [c.report() for c in _beside(evaluation)],
        "seeds": [s.report() for s in evaluation.spread],
    }


def write(evaluation: Evaluation, about: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Write all four files; returns what eval.json holds."""
    made = document(evaluation, about)
    place = run / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    (place / DOCUMENT).unlink(missing_ok=True)
    replace(place / "report.md", markdown(evaluation))
    replace(place / "report.html", page(evaluation))
    replace(place / "answers.jsonl", "".join(f"{line}\n" for line in _answers(evaluation)))
    replace(place / DOCUMENT, json.dumps(made, ensure_ascii=False, indent=1) + "\n")
    return made


def read(run: Path) -> dict[str, Any]:
    """eval.json of a run. Raises BadData if the run was not evaluated."""
    file = run / FOLDER / DOCUMENT
    try:
        made = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadData(f"{file}: is not there; run `finetune eval` first") from error
    except (OSError, ValueError) as error:
        raise BadData(f"{file}: cannot be read: {error}") from error
    if not isinstance(made, dict) or made.get("format") != FORMAT:
        raise BadData(f"{file}: is no evaluation that this program can read")
    return made


def metrics(made: Mapping[str, Any]) -> dict[str, float]:
    """Name -> the candidate's number and the base's, for a release's manifest."""
    out: dict[str, float] = {}
    for measure in made["measures"]:
        name = " ".join(p for p in (measure["ability"], measure["group"], measure["name"]) if p)
        out[name] = measure["candidate"]
        out[f"{name} (base)"] = measure["base"]
    return out


def markdown(evaluation: Evaluation) -> str:
    """The report for people who read Markdown; plots are in the HTML."""
    verdict = evaluation.verdict
    lines = [
        f"# {evaluation.candidate} against {evaluation.base}",
        "",
        f"The gate says **{'yes' if verdict.passed else 'no'}**: {verdict.why}.",
        "",
        *(f"- [{'x' if r.holds else ' '}] {r.text}" for r in verdict.reasons),
        "",
        f"| {' | '.join(_HEAD)} |",
        "|---" * len(_HEAD) + "|",
        *(f"| {' | '.join(_cells(c))} |" for c in evaluation.compared),
        "",
    ]
    if evaluation.beside:
        head = _head(evaluation.beside)
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(_cells(c))} |" for c in _beside(evaluation)] + [""]
    if evaluation.spread:
        lines += ["| over seeds | runs | mean | deviation |", "|---|---|---|---|"]
        lines += [
            f"| {s.label} | {len(s.runs)} | {s.mean:.4f} | {s.deviation:.4f} |"
            for s in evaluation.spread
        ]
        lines.append("")
    return "\n".join(lines)


def page(evaluation: Evaluation) -> str:
    """The same as one HTML file, plots inside."""
    verdict = evaluation.verdict
    said = "yes" if verdict.passed else "no"
    parts = [
        f"<h1>{_text(evaluation.candidate)} against {_text(evaluation.base)}</h1>",
        f'<p>The gate says <b class="{said}">{said}</b>.</p><ul>',
        *(
            f'<li class="{"yes" if r.holds else "no"}">{_text(r.text)}</li>'
            for r in verdict.reasons
        ),
        "</ul>",
        _image(plots.differences(evaluation.compared), "Differences with their intervals"),
        _table(_HEAD, [_cells(c) for c in evaluation.compared]),
    ]
    if evaluation.beside:
        parts.append(_table(_head(evaluation.beside), [_cells(c) for c in _beside(evaluation)]))
    if evaluation.spread:
        parts.append(_image(plots.spread(evaluation.spread), "Spread over seeds"))
    title = _text(f"{evaluation.candidate} against {evaluation.base}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def lines(evaluation: Evaluation) -> list[str]:
    """The report for a terminal."""
    width = max(len(c.label) for c in evaluation.compared)

    def told(compared: Sequence[Compared]) -> list[str]:
        return [f"{c.label:{width}}  {c.n:5}  {figures(c)}" for c in compared]

    out = told(evaluation.compared)
    if evaluation.beside:
        out += [f"beside {evaluation.beside.id}:", *told(evaluation.beside.compared)]
    out += [f"{s.label:{width}}  {s.mean:.4f} ± {s.deviation:.4f}" for s in evaluation.spread]
    out += [f"{'ok' if r.holds else 'NO':2}  {r.text}" for r in evaluation.verdict.reasons]
    return [*out, f"gate: {'passed' if evaluation.verdict.passed else 'not passed'}"]


def _answers(evaluation: Evaluation) -> list[str]:
    return [
        json.dumps(
            {**asdict(base), "candidate": said, "candidate_right": right}, ensure_ascii=False
        )
        for base, said, right in evaluation.answers
    ]


def _beside(evaluation: Evaluation) -> Sequence[Compared]:
    return evaluation.beside.compared if evaluation.beside else ()


def _head(beside: Beside) -> Sequence[str]:
    return [beside.id if name == "base" else name for name in _HEAD]


def _cells(c: Compared) -> list[str]:
    before, change = figures(c).removeprefix("perplexity ").split(" (", 1)
    base, candidate = before.split(" -> ")
    difference, interval = change.rstrip(")").split(", ", 1)
    p = f"{c.p_value:.3f}" if c.p_value >= 0.001 else "<.001"
    label = f"{c.label} (perplexity)" if c.log else c.label
    return [label, str(c.n), base, candidate, difference, interval, p]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_text(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _image(png: bytes, what: str) -> str:
    return f'<img alt="{what}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _text(text: str) -> str:
    return html.escape(text)
