"""How a diagnosis and a plan look: for a terminal, or as one JSON document."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from finetune.advice import Advice
from finetune.doctor import Diagnosis
from finetune.inspection import Segment
from finetune.outlook import Outlook
from finetune.plan import Plan
from finetune.problems import Problem
from finetune.rules import by_id

_LONGEST = 700
"""Characters of a masked stretch that are shown; its middle tells nothing."""
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1;32m", "\x1b[0m"
_MARK = {"serious": "!!", "warning": " !", "note": "  "}


def diagnosis(found: Diagnosis, *, colours: bool) -> str:
    """Rows with what is masked and what is trained, counts, problems; the worst last."""
    lines = []
    for source, segments in found.shown:
        lines += [f"── {source}", "".join(_segment(s, colours) for s in segments).rstrip(), ""]
    held, counts = found.ledger, found.facts.counts
    lines.append(
        f"{held.rendered} rows, {held.tokens:,} tokens, {held.trained_tokens:,} of them trained,"
        f" longest {held.longest}; {len(held.too_long)} too long"
    )
    for name, some in (
        ("role", counts.roles),
        ("ability", counts.abilities),
        ("language", counts.languages),
    ):
        if some:
            lines.append(f"{name}: {', '.join(f'{k} {n}' for k, n in some.items())}")
    return "\n".join([*lines, *_problems(found.problems)])


def _problems(found: Sequence[Problem]) -> list[str]:
    """The worst last."""
    return [
        f"{_MARK[level]} {p.check}: {p.text}{' (allowed)' if p.allowed else ''}"
        for level in ("note", "warning", "serious")
        for p in found
        if p.severity == level
    ]


def document(found: Diagnosis) -> dict[str, Any]:
    held, facts = found.ledger, found.facts
    return {
        "rows": held.rendered,
        "tokens": held.tokens,
        "trained_tokens": held.trained_tokens,
        "longest": held.longest,
        "too_long": held.too_long,
        "roles": dict(facts.counts.roles),
        "abilities": dict(facts.counts.abilities),
        "languages": dict(facts.counts.languages),
        "noisy": facts.noisy,
        "unlike": facts.unlike,
        "duplicates": facts.duplicates,
        "problems": [asdict(p) for p in found.problems],
        "memory": _memory(found.outlook) if found.outlook else None,
        "shown": [
            {"source": s, "segments": [{"text": x.text, "trained": x.trained} for x in segments]}
            for s, segments in found.shown
        ],
    }


def plan(made: Plan) -> str:
    """A line of advice and its rule, below it why; then what figures say against rules, and what
    the checks found."""
    lines = []
    for line in made.lines:
        instead = f" (configured: {line.configured})" if line.configured is not None else ""
        lines += [f"{line.about}: {line.value}{instead} [{line.rule}]", f"    {line.why}"]
    against = dict.fromkeys(line.rule for line in made.lines if line.disagrees)
    if against:
        lines += ["", "Published figures disagree with a rule:"]
        lines += [f"    {name}: {by_id(name).evidence.replace('**', '')}" for name in against]
    return "\n".join([*lines, "", *_problems(made.problems)]).rstrip()


def plan_document(made: Plan) -> dict[str, Any]:
    return {
        "lines": [_advice(line) for line in made.lines],
        "memory": _memory(made.outlook),
        "measured": asdict(made.measured) if made.measured else None,
        "seconds": round(made.seconds) if made.seconds is not None else None,
        "fits": not made.too_little,
        "problems": [asdict(p) for p in made.problems],
    }


def _advice(line: Advice) -> dict[str, Any]:
    evidence = by_id(line.rule).evidence.replace("**", "")
    return {**asdict(line), "disagrees": line.disagrees, "evidence": evidence}


def _memory(seen: Outlook) -> dict[str, Any]:
    """Bytes."""
    return {
        "device": seen.machine.name,
        "free": seen.machine.available,
        "batch": asdict(seen.batch),
        "needed": seen.run.total,
        "parts": dict(seen.run.parts),
        "by_method": {name: one.total for name, one in seen.needs.items()},
    }


def _segment(segment: Segment, colours: bool) -> str:
    if segment.trained:
        return f"{_BOLD}{segment.text}{_PLAIN}" if colours else f"⟦{segment.text}⟧"
    text = segment.text
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]} […{len(text) - _LONGEST} characters…] {text[-half:]}"
    return f"{_DIM}{text}{_PLAIN}" if colours else text
