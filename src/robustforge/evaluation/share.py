"""Who attacks which images: those of a cell, dealt out to processes and machines."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robustforge.types import UserError


@dataclass(frozen=True)
class Share:
    """One machine's part of an evaluation that several machines do together.

    Attributes:
        number: of this part, 1 .. count.
        count: of parts.

    Example:
        >>> Share.parse("2/8")
        Share(number=2, count=8)
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """A share as a command line gives it.

        Args:
            text: such as ``2/8``, the second of eight.

        Raises:
            UserError: it is none, or its number is not between 1 and the count.
        """
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"shard is '{text}': give a part and the number of parts, such as 1/8, 2/8 .. 8/8.")
        return cls(int(found[1]), int(found[2]))


def dealt(rows: NDArray[np.int64], unit: int, hand: int, hands: int) -> NDArray[np.int64]:
    """The positions that one of several processes attacks; each position goes to exactly one of them.

    Args:
        rows: all positions of the cell, (n,).
        unit: how many neighbors stay together: 1, or the batch of a system whose draws go by the batch.
        hand: this process, 0 .. hands - 1.
        hands: how many there are.

    Example:
        >>> dealt(np.arange(7), 2, 0, 2)
        array([0, 1, 4, 5])
    """
    mine: NDArray[np.int64] = rows[(np.arange(len(rows)) // unit) % hands == hand]
    return mine


def batches_of(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Positions (n,), cut into batches of ``size``, the last one maybe smaller."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
