"""Systems that may reject an input: how much they reject, and how well their risk tells right from wrong.

Risks are higher = more suspicious; an input is rejected when its risk is above the threshold. All of it is computed
from records, with plain numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustforge.records.statistics import wilson
from robustforge.records.table import Records

Floats = NDArray[np.float64]
FALSE_POSITIVE_RATES = (0.01, 0.05)  # of the table of detection rates


def risk_coverage(risk: Floats, wrong: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Error among the accepted when the riskiest are rejected (El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017).

    Args:
        risk: (n,) risks.
        wrong: (n,) whether the label is wrong.

    Returns:
        (coverage (n,) = 1/n .. 1, share of wrong answers among the covered (n,)).

    Notes:
        Samples of equal risk enter in no order of their own: the curve is the mean over all orders.
    """
    n = len(risk)
    _, group, sizes = np.unique(risk, return_inverse=True, return_counts=True)
    share = np.bincount(group, weights=wrong.astype(float)) / sizes
    errors = np.cumsum(np.repeat(share, sizes))
    answered = np.arange(1, n + 1)
    return answered / n, errors / answered


def aurc(risk: Floats, wrong: NDArray[np.bool_]) -> float:
    """Area under the risk-coverage curve in [0, 1]: its mean over the n coverages; lower is better."""
    return float(risk_coverage(risk, wrong)[1].mean()) if len(risk) else float("nan")


def auroc(negative: Floats, positive: Floats) -> float:
    """Chance that a positive sample's score is above a negative one's, ties counting half (Mann & Whitney 1947)."""
    if not len(negative) or not len(positive):
        return float("nan")
    ordered = np.sort(negative)
    below, upto = (np.searchsorted(ordered, positive, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(negative)))


def roc(negative: Floats, positive: Floats) -> tuple[Floats, Floats]:
    """(false-positive rates, true-positive rates) of "above t", from (0, 0) to (1, 1), one point a distinct score."""
    thresholds = np.unique(np.concatenate([negative, positive]))[::-1]

    def above(scores: Floats) -> Floats:
        rates: Floats = 1 - np.searchsorted(np.sort(scores), thresholds, side="right") / len(scores)
        return np.concatenate([[0.0], rates, [1.0]])

    return above(negative), above(positive)


def tpr_at_fpr(negative: Floats, positive: Floats, rate: float) -> float:
    """Share of positives above the smallest observed negative score that at most ``rate`` of the negatives exceed."""
    if not len(negative) or not len(positive):
        return float("nan")
    allowed = int(rate * len(negative) + 1e-9)
    threshold = np.sort(negative)[len(negative) - 1 - allowed]
    return float((positive > threshold).mean())


def triple(part: Records) -> dict[str, dict[str, Any]]:
    """Accepted and correct, accepted and wrong, rejected: percent of the cell's samples with Wilson's 95 % interval."""
    accepted, right = part["accepted"], part["prediction"] == part["label"]
    masks = {"accepted_correct": accepted & right, "accepted_wrong": accepted & ~right, "rejected": ~accepted}
    n = len(part)
    return {
        name: {"percent": 100 * float(mask.mean()), "interval": wilson(int(mask.sum()), n)}
        for name, mask in masks.items()
    }


def changed_risks(part: Records) -> Floats:
    """Risks of the images that an attack changed at all, the positives of detection."""
    changed: Floats = part["risk"][part["linf"] > 0]
    return changed


def abstention(part: Records, clean: Records | None) -> dict[str, Any] | None:
    """All figures of one cell, or None where no risk was recorded.

    Args:
        part: the cell's records.
        clean: the same system's clean records at the same threshold, or None; the negatives of detection.

    Returns:
        ``triple``; ``aurc`` of the cell's own risks and errors; and for attacked cells ``auroc`` and ``tpr_at_fpr``
        (by rate), of the images that the attack changed (``n_changed``) against the clean ones.
    """
    risk = part["risk"]
    if not np.isfinite(risk).all():
        return None
    found: dict[str, Any] = {"triple": triple(part), "aurc": aurc(risk, part["prediction"] != part["label"])}
    if clean is None or clean is part or not np.isfinite(clean["risk"]).all():
        return found
    positive, negative = changed_risks(part), clean["risk"]
    rates = {f"{rate:g}": tpr_at_fpr(negative, positive, rate) for rate in FALSE_POSITIVE_RATES}
    return found | {"auroc": auroc(negative, positive), "tpr_at_fpr": rates, "n_changed": len(positive)}
