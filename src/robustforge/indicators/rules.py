"""Signs that an attack failed, rather than the defense held: one function an indicator.

A robust accuracy is an upper bound. It means something only where the attack behind it did what attacks do; each
indicator is a way in which it did not (Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705;
Pintor et al. 2022, arXiv:2106.09947). Indicators are pure functions of the records. Two attacks are compared on the
samples that both saw, and a difference counts when it is at least ``evidence.LEAST`` points and an exact one-sided
McNemar test calls it significant (``evidence.ALPHA``): noise on few images violates nothing. Shares count when the
lower end of their 95 % Wilson interval is above the threshold.

Every function takes the judged cell and what it may be compared with (``evidence.comparable``), and returns None where
the records say nothing about its question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from robustforge.indicators.evidence import (
    Evidence,
    Indicator,
    cell_words,
    compare,
    compare_strongest,
    gain_of,
    same_budget,
    share,
    variants,
)
from robustforge.records.statistics import Outcomes, shared

NO_GAIN = 1e-6  # the attacker's objective has not risen where it gained at most this

# What a violation of each indicator means, as the footnotes of the tables say it, in their order.
MEANING = {
    "identity_at_zero": "at budget 0 the attack changes the answer to more than 1 % of the images",
    "unbounded_breaks": "at a budget that allows any image, the attack does not succeed on more than 5 % of the images",
    "monotone_in_eps": "the same attack succeeds more often at a smaller budget",
    "monotone_in_steps": "with twice as many steps the attack succeeds less often",
    "iterative_not_weaker_than_one_step": "a one-step attack on the same surface succeeds more often",
    "white_box_not_weaker_than_black_box": "an attack without the system's gradients succeeds more often",
    "noise_weaker_than_gradients": "random noise of the same budget succeeds more often",
    "loss_moved": "on more than 5 % of the images without success, the attacker's objective never rose",
    "zero_gradients": "more than 5 % of the attacked images have a gradient of exactly zero",
    "best_step_not_last": (
        "on more than 75 % of the images without success the last step was the best one, and twice as many steps "
        "succeed on at least 3 points more (or were not tried)"
    ),
    "restarts_agree": "with more restarts the attack succeeds on at least 3 points more",
}
# Which kinds of attack should not be weaker than which others at the same budget.
CHALLENGERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "iterative_not_weaker_than_one_step": (("iterative",), ("one_step",)),
    "white_box_not_weaker_than_black_box": (("iterative",), ("query", "transfer")),
    "noise_weaker_than_gradients": (("iterative", "one_step"), ("noise",)),
}
Rule = Callable[[Evidence, Sequence[Evidence]], Indicator | None]


def identity_at_zero(cell: Evidence, others: Sequence[Evidence]) -> Indicator | None:
    """Successes of the check at budget 0 against clean errors, image by image.

    Violated above 1 % of images that differ (a few may, where answers are random): the attack does not start from the
    clean image, or success is judged on something else.
    """
    zero = variants(cell, others, "identity")
    clean = [other for other in others if other.kind == "clean"]
    if not zero or not clean:
        return None
    part = clean[0].part
    right = (part["prediction"] == part["label"]) | ~part["accepted"]  # a rejected image is no success of an attack
    order = np.argsort(part["index"], kind="stable")
    a, b = shared(zero[0].outcomes, Outcomes(part["index"][order], right[order]))
    return share("identity_at_zero", int((a != b).sum()), len(a), 1.0, cell_words(zero[0].key))


def unbounded_breaks(cell: Evidence, others: Sequence[Evidence]) -> Indicator | None:
    """The check at the largest budget, at which any image may become any other.

    Violated where the attack does not succeed on more than 5 %: it does not find errors that are certainly there.
    """
    tried = variants(cell, others, "unbounded")
    if cell.kind != "iterative" or not tried:
        return None
    widest = max(tried, key=lambda other: other.key.eps)
    right = widest.outcomes.correct
    return share("unbounded_breaks", int(right.sum()), len(right), 5.0, cell_words(widest.key))


def monotone_in_eps(cell: Evidence, others: Sequence[Evidence]) -> Indicator | None:
    """The same attack at smaller budgets.

    Violated where one of them succeeds significantly more often, though all that it found is within this budget too:
    the optimization fails at the larger budget.
    """
    smaller = [other for other in variants(cell, others, "") if other.key.eps < cell.key.eps]
    return compare_strongest("monotone_in_eps", cell.outcomes, smaller) if cell.kind != "noise" else None


def monotone_in_steps(cell: Evidence, others: Sequence[Evidence]) -> Indicator | None:
    """The check with twice as many steps.

    Violated where it succeeds significantly less often than the attack itself: the steps lead away from errors.
    """
    longer = same_budget(cell, variants(cell, others, "steps"))
    if not longer:
        return None
    return compare("monotone_in_steps", longer[0].outcomes, cell.outcomes, cell_words(longer[0].key))


def _challenged(name: str, cell: Evidence, others: Sequence[Evidence]) -> Indicator | None:
    """Attacks at the same budget that should be weaker (``CHALLENGERS``).

    Violated where one of them succeeds significantly more often than this cell's attack: its gradients are worse than
    a single one (``iterative_not_weaker_than_one_step``, on the same surface), than none
    (``white_box_not_weaker_than_black_box``) or than chance (``noise_weaker_than_gradients``). They are masked, or the
    surface is the wrong one.
    """
    judged, challengers = CHALLENGERS[name]
    if cell.kind not in judged:
        return None
    rivals = [other for other in same_budget(cell, others) if other.kind in challengers and not other.key.check]
    if name == "iterative_not_weaker_than_one_step":
        rivals = [other for other in rivals if other.key.surface == cell.key.surface]
    return compare_strongest(name, cell.outcomes, rivals)


def loss_moved(cell: Evidence, _: Sequence[Evidence]) -> Indicator | None:
    """How much the attacker's objective rose on images without success, after at least two gradients.

    Violated where it did not rise at all on more than 5 %: the gradients are zero or wrong, or the step size is.
    """
    part = cell.part
    seen = ~np.isnan(part["loss_gain"]) & (part["backwards"] > 1) & ~part["success"]
    if cell.kind != "iterative":
        return None
    return share("loss_moved", int((part["loss_gain"][seen] <= NO_GAIN).sum()), int(seen.sum()), 5.0)


def zero_gradients(cell: Evidence, _: Sequence[Evidence]) -> Indicator | None:
    """The first gradient of every attacked image.

    Violated where all of its entries are exactly zero on more than 5 %: the gradients are masked or underflow.
    """
    gradient = cell.part["zero_gradient"]
    seen = ~np.isnan(gradient)
    if cell.kind not in ("iterative", "one_step"):
        return None
    return share("zero_gradients", int((gradient[seen] >= 1).sum()), int(seen.sum()), 5.0)


def best_step_not_last(cell: Evidence, others: Sequence[Evidence]) -> Indicator | None:
    """Where on its way the attack met its best objective, on images without success.

    Violated where that was the last step on more than 75 %, and the check with twice as many steps gains more than 3
    points or was not run: the attack had not converged.
    """
    part = cell.part
    seen = ~np.isnan(part["best_at"]) & (part["backwards"] > 2) & ~part["success"]
    if cell.kind != "iterative":
        return None
    late = share("best_step_not_last", int((part["best_at"][seen] >= 1).sum()), int(seen.sum()), 75.0)
    longer = same_budget(cell, variants(cell, others, "steps"))
    if late is None or not late.violated or not longer:
        return late
    violated = gain_of("", cell, longer[0]).violated
    return Indicator(late.name, violated, late.value, late.threshold, late.n, cell_words(longer[0].key))


def restarts_agree(cell: Evidence, others: Sequence[Evidence]) -> Indicator | None:
    """The check with more restarts.

    Violated where it gains more than 3 points: a single start does not find what is there.
    """
    more = same_budget(cell, variants(cell, others, "restarts"))
    return gain_of("restarts_agree", cell, more[0]) if more else None


RULES: tuple[Rule, ...] = (
    identity_at_zero,
    unbounded_breaks,
    monotone_in_eps,
    monotone_in_steps,
    *(partial(_challenged, name) for name in CHALLENGERS),
    loss_moved,
    zero_gradients,
    best_step_not_last,
    restarts_agree,
)
