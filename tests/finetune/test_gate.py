"""Intervals hold what they promise, and the gate opens only for what is shown."""

import numpy as np
import pytest

from finetune import gate
from finetune.compare import Compared, bootstrap, compare, sign_test, spread
from finetune.judges import Measure, Purpose
from finetune.settings import EvalSettings

SETTINGS = EvalSettings()


def pair(
    base: list[float], candidate: list[float], purpose: Purpose = "field", log: bool = False
) -> list[Compared]:
    def measure(values: list[float]) -> list[Measure]:
        return [Measure("a", "right", "", purpose, tuple(values), log)]

    return compare(measure(base), measure(candidate), SETTINGS, seed=1)


GENERAL = pair([1.0] * 50, [1.0] * 50, "general")


def test_the_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for n in range(200):
        low, high = bootstrap(rng.normal(0.1, 1, 80).tolist(), 0.9, n, resamples=1000)
        inside += low <= 0.1 <= high
    assert 0.84 <= inside / 200 <= 0.95


def test_an_interval_is_the_same_for_the_same_seed() -> None:
    values = [0.0, 1.0, -1.0, 1.0] * 10
    assert bootstrap(values, 0.95, 3) == bootstrap(values, 0.95, 3)


def test_only_items_on_which_the_models_differ_count() -> None:
    # 9 gained, 1 lost: P(at most 1 of 10) twice = 22 / 1024.
    base, candidate = [0.0] * 9 + [1.0], [1.0] * 9 + [0.0]
    assert sign_test(base, candidate) == pytest.approx(22 / 1024)
    assert sign_test(base + [1.0] * 500, candidate + [1.0] * 500) == pytest.approx(22 / 1024)
    assert sign_test([1.0], [1.0]) == 1.0


def test_pairing_matters() -> None:
    hard_and_easy = [0.0, 1.0] * 100
    slightly_better = [*hard_and_easy]
    slightly_better[0:20:2] = [1.0] * 10
    (compared,) = pair(hard_and_easy, slightly_better)
    assert compared.low > 0 and compared.p_value < 0.01


def test_what_is_better_for_sure_passes() -> None:
    verdict = gate.judge(pair([0.0] * 50, [1.0] * 30 + [0.0] * 20) + GENERAL)
    assert verdict.passed and "better" in verdict.why


def test_what_may_be_chance_does_not() -> None:
    verdict = gate.judge(pair([0.0] * 50, [1.0] + [0.0] * 49) + GENERAL)
    assert not verdict.passed and "not shown to be better" in verdict.why


@pytest.mark.parametrize(
    ("gained", "of", "passes"), [(1, 1, False), (3, 5, False), (5, 42, False), (6, 42, True)]
)
def test_a_handful_of_items_shows_nothing_however_lopsided(
    gained: int, of: int, passes: bool
) -> None:
    """The bootstrap's interval alone would be above zero in each of these."""
    (few,) = pair([0.0] * of, [1.0] * gained + [0.0] * (of - gained))
    assert few.low > 0
    verdict = gate.judge([few, *GENERAL])
    assert verdict.passed is passes
    assert ("not shown to be better" in verdict.why) is not passes


GAINED = pair([0.0] * 50, [1.0] * 50)


@pytest.mark.parametrize(("lost", "passes"), [(1, True), (2, True), (3, False)])
def test_a_general_ability_may_fall_by_its_margin(lost: int, passes: bool) -> None:
    fallen = pair([1.0] * 100, [0.0] * lost + [1.0] * (100 - lost), "general")
    assert gate.judge(GAINED + fallen).passed is passes


def test_strict_asks_for_the_whole_interval() -> None:
    fallen = pair([1.0] * 100, [0.0] + [1.0] * 99, "general")
    assert gate.judge(GAINED + fallen).passed
    assert not gate.judge(GAINED + fallen, strict=True).passed


@pytest.mark.parametrize(("rise", "passes"), [(0.04, True), (0.06, False)])
def test_perplexity_may_rise_by_its_share(rise: float, passes: bool) -> None:
    base = [-2.0, -3.0] * 20
    text = pair(base, [b - float(np.log1p(rise)) for b in base], "general", log=True)
    verdict = gate.judge(GAINED + text)
    assert verdict.passed is passes and f"+{rise * 100:.1f}%" in verdict.reasons[1].text


def test_what_was_not_measured_does_not_pass() -> None:
    assert "nothing of the field" in gate.judge(GENERAL).why
    assert "no general ability" in gate.judge(GAINED).why


def test_what_is_only_told_decides_nothing() -> None:
    told = pair([1.0] * 50, [0.0] * 50, "told")
    assert gate.judge(GAINED + GENERAL + told).passed


def test_measures_that_are_not_paired_are_refused() -> None:
    one, two = (Measure("a", "right", "", "field", (1.0,) * n) for n in (1, 2))
    with pytest.raises(ValueError, match="not paired"):
        compare([one], [two], SETTINGS, 1)


def test_one_run_has_no_spread() -> None:
    (only,) = spread([[Measure("a", "right", "", "field", (1.0, 0.0))]])
    assert only.mean == 0.5 and only.deviation == 0.0


PASSED = GAINED + GENERAL


def beside(
    served: list[float], candidate: list[float], purpose: Purpose = "part", log: bool = False
) -> gate.Beside:
    return gate.Beside("r1", tuple(pair(served, candidate, purpose, log)))


@pytest.mark.parametrize("purpose", ["field", "part", "general"])
def test_what_is_shown_to_be_worse_than_what_is_served_does_not_pass(purpose: Purpose) -> None:
    verdict = gate.judge(PASSED, beside([1.0] * 34 + [0.0] * 6, [0.0] * 37 + [1.0] * 3, purpose))
    assert not verdict.passed
    assert verdict.why.startswith("a right 85.0% -> 7.5%") and "worse than r1" in verdict.why


@pytest.mark.parametrize(("lost", "passes"), [(5, True), (6, False)])
def test_a_few_items_fewer_than_what_is_served_may_be_chance(lost: int, passes: bool) -> None:
    """Margin or not: of two that are alike one always has a few items less."""
    fewer = beside([1.0] * 40, [0.0] * lost + [1.0] * (40 - lost))
    assert fewer.compared[0].high < 0
    verdict = gate.judge(PASSED, fewer)
    assert verdict.passed is passes
    assert any("nothing is shown to be worse than r1" in r.text for r in verdict.reasons) is passes


@pytest.mark.parametrize(("rise", "passes"), [(0.04, True), (0.06, False)])
def test_what_is_surely_but_hardly_worse_than_what_is_served_passes(
    rise: float, passes: bool
) -> None:
    before = [-2.0, -3.0] * 20
    text = beside(before, [b - float(np.log1p(rise)) for b in before], "general", log=True)
    assert text.compared[0].worse
    assert gate.judge(PASSED, text).passed is passes


@pytest.mark.parametrize(("texts", "passes"), [(5, True), (6, False)])
def test_perplexity_of_a_handful_of_texts_shows_nothing(texts: int, passes: bool) -> None:
    few = beside([-2.0] * texts, [-2.2] * texts, "general", log=True)
    assert few.compared[0].high < -few.compared[0].margin
    assert gate.judge(PASSED, few).passed is passes


def test_a_yes_says_beside_which_release() -> None:
    why = gate.judge(PASSED, beside([1.0] * 40, [1.0] * 40)).why
    assert why.endswith(": better; nothing is shown to be worse than r1")


def test_what_is_only_told_decides_nothing_beside_what_is_served_either() -> None:
    assert gate.judge(PASSED, beside([1.0] * 40, [0.0] * 40, "told")).passed
