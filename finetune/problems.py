"""What a check found: how bad, which check, and one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.rules import Finding, Severity


@dataclass(frozen=True, slots=True)
class Problem:
    """`check` is the id of a rule, or what was looked at."""

    severity: Severity
    check: str
    text: str
    allowed: bool = False

    @property
    def is_serious(self) -> bool:
        return self.severity == "serious" and not self.allowed


def of_rules(findings: Sequence[Finding]) -> list[Problem]:
    return [Problem(f.severity, f.rule.id, f.text, f.allowed) for f in findings]
