"""Which images an evaluation attacks and judges: test images for a result, held-out training images for a choice."""

from __future__ import annotations

import copy

from robustforge.data.datamodule import SPLITS, ImageData
from robustforge.data.resident import Split
from robustforge.fingerprint import key_of
from robustforge.types import UserError


def judged_on(data: ImageData, split: str) -> ImageData:
    """The data as an evaluation is to see it.

    Args:
        data: set up; left as it is, so that what was trained on it keeps its keys.
        split: ``test``; ``calibration``, training images that no stage was trained on; or ``train``.

    Returns:
        ``data`` itself for ``test``. Else a copy whose ``test`` are the images of that split. Of the calibration images
        every second one is judged, and the others fit the thresholds, so that no threshold is judged on the images that
        it was fitted on.

    Raises:
        UserError: no such split, or fewer than two held-out images.

    Example:
        >>> choice = judged_on(data, "calibration")                             # doctest: +SKIP
        >>> len(choice.calibration) + len(choice.test) == len(data.calibration)  # doctest: +SKIP
        True
    """
    if split not in SPLITS:
        raise UserError(f"There is no split '{split}': choose one of {', '.join(SPLITS)}.")
    if split == "test":
        return data
    judged = copy.copy(data)
    judged.fingerprint = key_of({"data": data.fingerprint, "judged_on": split})
    if split == "train":
        judged.test = data.train
        return judged
    if len(data.calibration) < 2:
        raise UserError("split=calibration needs held-out training images: set dataset.held_out to 2 or more.")
    judged.calibration, judged.test = (_every_second(data.calibration, first) for first in (0, 1))
    return judged


def _every_second(split: Split, first: int) -> Split:
    return Split(split.images[first::2].contiguous(), split.labels[first::2].contiguous())
