"""How far a percentage of n samples may be trusted: the intervals that every table uses."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
# two-sided 95 % quantiles of Student's t by degrees of freedom; beyond the list the normal one is 0.2 short at most
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_NORMAL_95 = 1.960


def wilson(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a proportion, in percent.

    Chosen over the normal interval because robust accuracies sit near 0 and 100 %, where the latter has width zero.

    Args:
        successes: how many of the ``n`` samples count.
        n: number of samples; 0 gives the interval that says nothing, (0, 100).
        z: normal quantile, 95 % by default.

    Returns:
        (low, high) in percent, inside [0, 100].
    """
    if n == 0:
        return 0.0, 100.0
    p = successes / n
    denominator = 1 + z * z / n
    center = (p + z * z / (2 * n)) / denominator
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / denominator
    # rounding may leave 1e-17 where the interval touches 0 or 1 exactly
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == n else min(1.0, center + half)
    return 100 * low, 100 * high


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Mean of independent runs and Student's 95 % interval for the mean of all such runs.

    Args:
        values: one a run, percent; at least two.

    Returns:
        (mean, (low, high)), the interval cut to [0, 100].

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} run has no spread: give at least two.")
    mean = statistics.fmean(values)
    quantile = _T_95[len(values) - 2] if len(values) - 2 < len(_T_95) else _NORMAL_95
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean, (max(0.0, mean - half), min(100.0, mean + half))


@dataclass(frozen=True)
class Outcomes:
    """Who is right on which sample.

    Attributes:
        index: (n,) int64, sorted and unique positions in the split.
        correct: (n,) bool, whether the system is right on that sample, or the attack on it did not succeed.
        skipped: (n,) bool, which samples the attack left alone, because another had broken them; None: no sample.
    """

    index: NDArray[np.int64]
    correct: NDArray[np.bool_]
    skipped: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Difference:
    """Accuracy of the first system minus that of the second, in points, with its 95 % interval over ``n`` samples."""

    points: float
    low: float
    high: float
    n: int


def mcnemar(first: int, second: int) -> float:
    """One-sided exact McNemar test on discordant pairs (McNemar 1947).

    Args:
        first: samples on which only the first system is wrong.
        second: samples on which only the second one is wrong.

    Returns:
        Probability of at least ``first`` of ``first + second`` if both were equally likely; 1 without discordant pairs.
    """
    n = first + second
    if not n or not first:
        return 1.0
    chance = -n * math.log(2) + math.lgamma(n + 1)
    terms = [math.exp(chance - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(first, n + 1)]
    return min(1.0, math.fsum(terms))


def shared(first: Outcomes, second: Outcomes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Who is right on the samples that both were tested on: two (n,) arrays, aligned."""
    _, a, b = np.intersect1d(first.index, second.index, assume_unique=True, return_indices=True)
    return first.correct[a], second.correct[b]


def paired_difference(first: Outcomes, second: Outcomes, resamples: int = 10_000, seed: int = 0) -> Difference:
    """Paired bootstrap over the samples that both systems were tested on.

    Args:
        first: outcomes of one system (``summary.outcomes`` or ``summary.worst_outcomes``).
        second: outcomes of the other.
        resamples: bootstrap resamples.
        seed: of the resampling.

    Raises:
        ValueError: the two have no sample in common.

    Notes:
        A paired difference takes the values -1, 0 and 1 only, so resampling n samples is one multinomial draw.
    """
    a, b = shared(first, second)
    n = len(a)
    if n == 0:
        raise ValueError("The two systems share no sample: evaluate both on the same split and the same indices.")
    difference = a.astype(np.int64) - b.astype(np.int64)
    counts = np.array([(difference == value).sum() for value in (-1, 0, 1)])
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    low, high = np.percentile(100 * (draws[:, 2] - draws[:, 0]) / n, [2.5, 97.5])
    return Difference(100 * float(difference.mean()), float(low), float(high), n)
