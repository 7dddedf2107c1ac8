"""Type hints that say which numbers make sense: they are the documentation of a setting and its check.

See :mod:`robustforge.hints` for who checks them. All of them refuse NaN and infinity, and ``true`` is no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # what torch and NumPy take

PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]  # of a whole: [0, 1]
PositiveShare = Annotated[float, Gt(0), Le(1)]  # (0, 1]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]  # [0, 1)
OpenShare = Annotated[float, Gt(0), Lt(1)]  # (0, 1)

Item = TypeVar("Item")
Some = Annotated[Sequence[Item], MinLen(1)]  # a sequence that is not empty

Shape = Annotated[Sequence[PositiveInt], MinLen(3), MaxLen(3)]  # of an image: (C, H, W)
Classes = Annotated[int, Ge(2)]  # how many
Precision = Literal["auto", "float32", "bf16"]  # of the passes of an attack or a search; auto: bf16 where it is fast
