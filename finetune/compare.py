"""Two models' numbers on the same items -> difference, confidence interval, p-value. Pure.

Paired throughout: an item that is hard for both says nothing about their difference.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from finetune.judges import Measure, Purpose
from finetune.settings import EvalSettings

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Compared:
    """One measure of both models. `low` and `high` bound the mean difference (candidate - base)."""

    ability: str
    name: str
    group: str
    purpose: Purpose
    n: int
    base: float
    candidate: float
    difference: float
    low: float
    high: float
    p_value: float
    """The exact sign test over the pairs; of yes and no it is McNemar's."""
    better: bool
    """Beyond chance: the whole interval is above zero, and the sign test agrees. The bootstrap
    alone is too sure of few items: of one gained and none lost, every resample has a gain."""
    worse: bool
    """The same, below zero."""
    margin: float
    """How much worse it may be: `part` and `general` than the base, and `field` than a release."""
    log: bool
    """Log-likelihoods a token: `exp` of minus the mean is a perplexity."""

    @property
    def label(self) -> str:
        return " ".join(part for part in (self.ability, self.group, self.name) if part)

    def report(self) -> dict[str, Any]:
        shown = {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self).items()}
        if self.log:
            shown["perplexity"] = [round(math.exp(-x), 3) for x in (self.base, self.candidate)]
        return shown


@dataclass(frozen=True, slots=True)
class Spread:
    """The same measure over runs that differ by the seed alone."""

    label: str
    runs: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.runs))

    @property
    def deviation(self) -> float:
        """Of the sample; 0 for one run."""
        return float(np.std(self.runs, ddof=1)) if len(self.runs) > 1 else 0.0

    def report(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "runs": [round(x, 5) for x in self.runs],
            "mean": round(self.mean, 5),
            "deviation": round(self.deviation, 5),
        }


def compare(
    base: Sequence[Measure], candidate: Sequence[Measure], settings: EvalSettings, seed: int
) -> list[Compared]:
    """Measure by measure; both must come from the same judges over the same items."""
    return [
        _one(b, c, settings, seed) for b, c in zip(base, candidate, strict=True) if len(b.values)
    ]


def spread(runs: Sequence[Sequence[Measure]]) -> list[Spread]:
    """What the runs of several seeds measured, each measure over all of them."""
    return [
        Spread(same[0].label, tuple(float(np.mean(m.values)) for m in same))
        for same in zip(*runs, strict=True)
        if len(same[0].values)
    ]


def bootstrap(
    differences: Sequence[float], confidence: float, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile interval of the mean of paired differences."""
    values = np.asarray(differences)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            rng.choice(values, (min(500, resamples - start), len(values))).mean(axis=1)
            for start in range(0, resamples, 500)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sign_test(base: Sequence[float], candidate: Sequence[float]) -> float:
    """Exact two-sided p-value: how likely so lopsided a change is if both are equally good."""
    gained = sum(b < c for b, c in zip(base, candidate, strict=True))
    lost = sum(b > c for b, c in zip(base, candidate, strict=True))
    if not gained + lost:
        return 1.0
    return float(binomtest(min(gained, lost), gained + lost, 0.5).pvalue)


def _one(base: Measure, candidate: Measure, settings: EvalSettings, seed: int) -> Compared:
    if (base.label, len(base.values)) != (candidate.label, len(candidate.values)):
        raise ValueError(f"{base.label} is not paired with {candidate.label}")
    differences = np.subtract(candidate.values, base.values)
    low, high = bootstrap(differences.tolist(), settings.confidence, seed)
    p_value = sign_test(base.values, candidate.values)
    chance = p_value > 1 - settings.confidence
    return Compared(
        ability=base.ability,
        name=base.name,
        group=base.group,
        purpose=base.purpose,
        n=len(base.values),
        base=float(np.mean(base.values)),
        candidate=float(np.mean(candidate.values)),
        difference=float(np.mean(differences)),
        low=low,
        high=high,
        p_value=p_value,
        better=low > 0 and not chance,
        worse=high < 0 and not chance,
        margin=math.log1p(settings.perplexity_margin) if base.log else settings.margin,
        log=base.log,
    )
