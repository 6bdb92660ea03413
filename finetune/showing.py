"""How a diagnosis and a plan look: for a terminal, or as one JSON document."""

from typing import Any

from finetune.doctor import Diagnosis
from finetune.inspection import Segment

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
    for level in ("note", "warning", "serious"):
        for p in found.problems:
            if p.severity == level:
                allowed = " (allowed)" if p.allowed else ""
                lines.append(f"{_MARK[level]} {p.check}: {p.text}{allowed}")
    return "\n".join(lines)


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
        "problems": [
            {"severity": p.severity, "check": p.check, "text": p.text, "allowed": p.allowed}
            for p in found.problems
        ],
        "shown": [
            {"source": s, "segments": [{"text": x.text, "trained": x.trained} for x in segments]}
            for s, segments in found.shown
        ],
    }


def _segment(segment: Segment, colours: bool) -> str:
    if segment.trained:
        return f"{_BOLD}{segment.text}{_PLAIN}" if colours else f"⟦{segment.text}⟧"
    text = segment.text
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]} […{len(text) - _LONGEST} characters…] {text[-half:]}"
    return f"{_DIM}{text}{_PLAIN}" if colours else text
