"""Measured differences -> yes or no, and every reason. Pure.

Yes if the field became better beyond chance (`Compared.better`), no part of the field and no
general ability worse by more than its margin, and nothing of them, beyond chance and by more than
its margin, worse than the release that is served. Refusing everything is no gain: the parts hold
what refusing costs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.compare import Compared


@dataclass(frozen=True, slots=True)
class Reason:
    """One condition, and whether it holds."""

    holds: bool
    text: str
    proof: bool = False
    """Whether it is told of a yes as well."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says."""

    reasons: tuple[Reason, ...]

    @property
    def passed(self) -> bool:
        return all(reason.holds for reason in self.reasons)

    @property
    def why(self) -> str:
        """The conditions that do not hold; where all do, the gain, and beside which release."""
        failed = [r.text for r in self.reasons if not r.holds]
        return "; ".join(failed or [r.text for r in self.reasons if r.proof])

    def report(self) -> dict[str, Any]:
        reasons = [{"holds": r.holds, "text": r.text} for r in self.reasons]
        return {"passed": self.passed, "why": self.why, "reasons": reasons}


@dataclass(frozen=True, slots=True)
class Beside:
    """The release `id` against the candidate, measure by measure."""

    id: str
    compared: tuple[Compared, ...]


def judge(
    compared: Sequence[Compared], beside: Beside | None = None, *, strict: bool = False
) -> Verdict:
    """`compared`: the base against the candidate. `strict`: "not worse" than the base must hold for
    the whole interval, not for the estimate alone."""
    reasons = [_better(c) for c in compared if c.purpose == "field"]
    if not reasons:
        reasons.append(
            Reason(False, "nothing of the field was measured (`eval.questions`, `grounding`)")
        )
    reasons += [_not_worse(c, strict) for c in compared if c.purpose in ("part", "general")]
    if not any(c.purpose == "general" for c in compared):
        text = "no general ability was measured (`eval.choice`, `maths`, `text`)"
        reasons.append(Reason(False, text))
    reasons += _not_worse_than(beside) if beside else []
    return Verdict(tuple(reasons))


def _better(c: Compared) -> Reason:
    said = f"{c.label} {figures(c)}"
    if c.better:
        return Reason(True, f"{said}: better", proof=True)
    chance = f" (p = {c.p_value:.2f})" if c.low > 0 else ""
    return Reason(False, f"{said}: not shown to be better{chance}")


def _not_worse(c: Compared, strict: bool) -> Reason:
    said = f"{c.label} {figures(c)}"
    if (c.low if strict else c.difference) >= -c.margin:
        return Reason(True, f"{said}: not worse beyond {_margin(c)}")
    return Reason(False, f"{said}: worse beyond {_margin(c)}")


def _not_worse_than(beside: Beside) -> list[Reason]:
    """Two tuned models are often alike, so that an estimate of few items would decide by chance."""
    worse = [c for c in beside.compared if c.worse and c.difference < -c.margin]
    lost = [c for c in worse if c.purpose != "told"]
    if not lost:
        return [Reason(True, f"nothing is shown to be worse than {beside.id}", proof=True)]
    return [Reason(False, f"{c.label} {figures(c)}: worse than {beside.id}") for c in lost]


def figures(c: Compared) -> str:
    """`30.0% -> 45.0% (+15.0 points, 8.1 to 22.0)`, or perplexities."""
    if c.log:
        before, after = math.exp(-c.base), math.exp(-c.candidate)
        low, high = (100 * math.expm1(-x) for x in (c.high, c.low))
        change = 100 * math.expm1(-c.difference)
        return f"perplexity {before:.2f} -> {after:.2f} ({change:+.1f}%, {low:+.1f} to {high:+.1f})"
    low, high = 100 * c.low, 100 * c.high
    return (
        f"{c.base:.1%} -> {c.candidate:.1%}"
        f" ({100 * c.difference:+.1f} points, {low:+.1f} to {high:+.1f})"
    )


def _margin(c: Compared) -> str:
    return f"{math.expm1(c.margin):.0%}" if c.log else f"{100 * c.margin:g} points"
