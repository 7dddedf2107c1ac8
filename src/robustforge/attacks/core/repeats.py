"""Ascents that repeat themselves: sign steps of one size revisit iterates, and the rest of the run is known then.

Such a step is a function of the iterate alone, as long as the network answers the same image the same way. A run that
meets an iterate again (or does not move, in a corner of its ball) goes round in a circle (arXiv:2503.19347). It goes on
only until it stands where it would stand after all its steps, so that the result is the same, bit for bit.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustforge.attacks.core.ascent import Ascent
from robustforge.attacks.core.survivors import Survivors

PAYS_FROM = 4.0  # radii that a run could travel in all; measured: shorter ones never met an iterate twice
_EVERY = 4  # steps after which another iterate is remembered: circles of up to so many steps are found, nearly all


class Repeats:
    """Watches the runs of one ascent.

    Args:
        steps: of the ascent.
        travel: length of all of them together, in radii of the ball; short ascents are not watched.
        device: of the images.

    Notes:
        Iterates are compared, not hashed, and only those whose objective is that of the remembered one: that costs next
        to nothing. A network that draws random numbers, from the generators of PyTorch, NumPy or Python or, as its
        objective then tells, from one of its own, is never taken to repeat itself.
    """

    def __init__(self, steps: int, travel: float, device: torch.device) -> None:
        self._steps, self._device, self._remembered = steps, device, 0
        self._draws = self._generators() if travel > PAYS_FROM else None

    def end(self, runs: Survivors, s: Ascent, number: int) -> Ascent:
        """Ends the runs that stand where they would stand after all steps.

        Args:
            runs: that go on.
            s: their state after ``number`` steps, with the objective at the iterates; what is remembered is kept in it.
            number: of steps made.

        Returns:
            The state of those that still go on.
        """
        if self._draws is None or s.value is None:
            return s
        if s.until is None:
            s.until = torch.full((len(s.x),), self._steps, device=self._device)
        self._find(s, s.until, s.value, number)
        if number % _EVERY == 0:
            s.remembered, s.known, self._remembered = s.x, s.value, number
        return runs.drop(s, s.until == number, s.x)

    def _find(self, s: Ascent, until: Tensor, value: Tensor, number: int) -> None:
        """Notes in ``until`` (m,) where the runs that have met the remembered iterate again are to stop."""
        if s.remembered is None:
            return
        near = ((value == s.known) & (until == self._steps)).nonzero().flatten()
        if not len(near):
            return
        met = near[(s.x[near] == s.remembered[near]).flatten(1).all(1)]
        if len(met) and self._generators() == self._draws:
            until[met] = number + (self._steps - number) % (number - self._remembered)

    def _generators(self) -> tuple[object, ...]:
        """The state of every generator that a network may draw from."""
        torch_state = [torch.get_rng_state()]
        if self._device.type == "cuda":
            torch_state.append(torch.cuda.get_rng_state(self._device))
        numpy_state: Any = np.random.get_state()
        return (
            *(state.numpy().tobytes() for state in torch_state),
            numpy_state[1].tobytes(),
            numpy_state[2:],
            random.getstate(),
        )
