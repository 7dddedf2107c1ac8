"""Whether an attack worked: what the records say about each number, beside the number.

A robust accuracy is an upper bound. It is worth something only where the attack behind it did what attacks do; each
indicator below is a way in which it did not (Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019,
arXiv:1902.06705; Pintor et al. 2022, arXiv:2106.09947). Indicators are pure functions of the records. Two attacks are
compared on the samples that both saw, and a difference counts when it is at least ``evidence.LEAST`` points and an
exact one-sided McNemar test calls it significant (``evidence.ALPHA``): noise on few images violates nothing. Shares
count when the lower end of their 95 % Wilson interval is above the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from robustforge.indicators.evidence import (
    Evidence,
    Indicator,
    cell_words,
    comparable,
    compare,
    gain_of,
    same_budget,
    share,
    twins,
    worst_of,
)
from robustforge.records.statistics import Outcomes, shared
from robustforge.records.summary import combine
from robustforge.records.table import CellKey, same_eps

STILL = 1e-6  # a gain of the attacker's objective below this is none

# What each indicator claims, with its threshold. The order is that of the footnotes.
MEANING = {
    "identity_at_zero": "at budget 0 the attack changes the answer to more than 1 % of the images",
    "unbounded_breaks": "a budget at which nothing can stand leaves more than 5 %",
    "monotone_in_eps": "the same attack breaks more at a smaller budget",
    "monotone_in_steps": "twice as many steps break less",
    "iterative_not_weaker_than_one_step": "a one-step attack on the same surface breaks more",
    "white_box_not_weaker_than_black_box": "an attack without the system's gradients breaks more",
    "noise_weaker_than_gradients": "random noise of the same budget breaks more",
    "loss_moved": "on more than 5 % of the images that stand, the attacker's objective never rose",
    "zero_gradients": "more than 5 % of the attacked images have a gradient of exactly zero",
    "best_step_not_last": (
        "more than three quarters of the images that stand were attacked best by the last step, and twice as many "
        "steps break at least 3 points more (or were not tried)"
    ),
    "restarts_agree": "more restarts break at least 3 points more",
}


def judge(cells: Sequence[Evidence]) -> dict[CellKey, list[Indicator]]:
    """The indicators of every attacked cell of the table, as far as the recorded evidence goes."""
    return {me.key: _of_cell(me, comparable(me, cells)) for me in cells if me.kind != "clean" and not me.key.check}


def judge_worst(
    cells: Sequence[Evidence],
    judged: dict[CellKey, list[Indicator]],
    system: str,
    norm: str,
    eps: float,
    rate: float | None,
) -> list[Indicator] | None:
    """The indicators of a worst case: those of the best attack it rests on.

    Of the iterated white-box attacks that are not significantly weaker than all of them together, the one with the
    fewest violations speaks for the worst case: a weaker attack's failure does not matter where a sound one found as
    much. Attacks without gradients are compared with all gradient attacks together.

    Returns:
        The indicators, or None where no iterated white-box attack was recorded: nothing supports the number then.
    """
    here = [
        one
        for one in cells
        if one.key.system == system
        and one.key.norm == norm
        and same_eps(one.key.eps, eps)
        and one.key.rate == rate
        and not one.key.check
    ]
    white = [one for one in here if one.kind == "iterative"]
    if not white:
        return None
    together = combine([one.held for one in white])
    strong = [one for one in white if not compare("", one.held, together).violated] or white
    best = min(strong, key=lambda one: (sum(i.violated for i in judged[one.key]), one.accuracy))
    crossed = {name: kinds for name, (_, kinds) in _CHALLENGERS.items()}
    kept = [indicator for indicator in judged[best.key] if indicator.name not in crossed]
    for name, kinds in crossed.items():
        challengers = [one for one in here if one.kind in kinds]
        found = worst_of(name, together, challengers)
        kept += [found] if found else []
    return sorted(kept, key=lambda indicator: list(MEANING).index(indicator.name))


def _of_cell(me: Evidence, peers: Sequence[Evidence]) -> list[Indicator]:
    found = [rule(me, peers) for rule in _RULES]
    return [indicator for indicator in found if indicator is not None]


def _identity(me: Evidence, peers: Sequence[Evidence]) -> Indicator | None:
    """Success at budget 0 against clean error, image by image; a few may differ where answers are random."""
    zero = twins(me, peers, "identity")
    clean = [one for one in peers if one.kind == "clean"]
    if not zero or not clean:
        return None
    part = clean[0].part
    wrong = (part["prediction"] != part["label"]) & part["accepted"].astype(bool)
    order = np.argsort(part["index"], kind="stable")
    a, b = shared(zero[0].held, Outcomes(part["index"][order], ~wrong[order]))
    return share("identity_at_zero", int((a != b).sum()), len(a), 1.0, cell_words(zero[0].key))


def _unbounded(me: Evidence, peers: Sequence[Evidence]) -> Indicator | None:
    tried = twins(me, peers, "unbounded")
    if me.kind != "iterative" or not tried:
        return None
    widest = max(tried, key=lambda one: one.key.eps)
    return share(
        "unbounded_breaks", int(widest.held.correct.sum()), len(widest.held.index), 5.0, cell_words(widest.key)
    )


def _monotone_in_eps(me: Evidence, peers: Sequence[Evidence]) -> Indicator | None:
    smaller = [one for one in twins(me, peers, "") if one.key.eps < me.key.eps]
    return worst_of("monotone_in_eps", me.held, smaller) if me.kind != "noise" else None


def _monotone_in_steps(me: Evidence, peers: Sequence[Evidence]) -> Indicator | None:
    more = same_budget(me, twins(me, peers, "steps"))
    return compare("monotone_in_steps", more[0].held, me.held, cell_words(more[0].key)) if more else None


def _challenged(name: str) -> Callable[[Evidence, Sequence[Evidence]], Indicator | None]:
    """Compares with weaker kinds of attack at the same budget."""
    defenders, challengers = _CHALLENGERS[name]

    def rule(me: Evidence, peers: Sequence[Evidence]) -> Indicator | None:
        rivals = [one for one in same_budget(me, peers) if one.kind in challengers and not one.key.check]
        if name == "iterative_not_weaker_than_one_step":
            rivals = [one for one in rivals if one.key.surface == me.key.surface]
        return worst_of(name, me.held, rivals) if me.kind in defenders else None

    return rule


def _loss_moved(me: Evidence, _: Sequence[Evidence]) -> Indicator | None:
    """Among images that stand: one that was broken has been moved enough."""
    part = me.part
    seen = ~np.isnan(part["loss_gain"]) & (part["backwards"] > 1) & ~part["success"].astype(bool)
    if me.kind != "iterative":
        return None
    return share("loss_moved", int((part["loss_gain"][seen] <= STILL).sum()), int(seen.sum()), 5.0)


def _zero_gradients(me: Evidence, _: Sequence[Evidence]) -> Indicator | None:
    gradient = me.part["zero_gradient"]
    seen = ~np.isnan(gradient)
    if me.kind not in ("iterative", "one_step"):
        return None
    return share("zero_gradients", int((gradient[seen] >= 1).sum()), int(seen.sum()), 5.0)


def _best_step(me: Evidence, peers: Sequence[Evidence]) -> Indicator | None:
    """A climb whose last step was its best had not arrived; whether that matters, more steps show."""
    part = me.part
    seen = ~np.isnan(part["best_at"]) & (part["backwards"] > 2) & ~part["success"].astype(bool)
    if me.kind != "iterative" or not seen.any():
        return None
    late = share("best_step_not_last", int((part["best_at"][seen] >= 1).sum()), int(seen.sum()), 75.0)
    more = same_budget(me, twins(me, peers, "steps"))
    if late is None or not late.violated or not more:
        return late
    violated = gain_of("", me, more[0]).violated
    return Indicator(late.name, violated, late.value, late.threshold, late.n, cell_words(more[0].key))


def _restarts(me: Evidence, peers: Sequence[Evidence]) -> Indicator | None:
    more = same_budget(me, twins(me, peers, "restarts"))
    return gain_of("restarts_agree", me, more[0]) if more else None


# who should not be weaker than whom, at the same budget
_CHALLENGERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "iterative_not_weaker_than_one_step": (("iterative",), ("one_step",)),
    "white_box_not_weaker_than_black_box": (("iterative",), ("query", "transfer")),
    "noise_weaker_than_gradients": (("iterative", "one_step"), ("noise",)),
}
_RULES: tuple[Callable[[Evidence, Sequence[Evidence]], Indicator | None], ...] = (
    _identity,
    _unbounded,
    _monotone_in_eps,
    _monotone_in_steps,
    *map(_challenged, _CHALLENGERS),
    _loss_moved,
    _zero_gradients,
    _best_step,
    _restarts,
)


def violations(indicators: Sequence[Indicator] | None) -> list[str]:
    """Names of the violated ones."""
    return [one.name for one in indicators or () if one.violated]


def plain_indicators(indicators: Sequence[Indicator]) -> list[dict[str, Any]]:
    """For ``result.json``."""
    return [vars(one) for one in indicators]
