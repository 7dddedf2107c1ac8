"""Labels where they enter: what is sure is converted and said, what is doubtful is refused with advice.

NumPy alone: the data sets on disk and arrays given in Python pass the same checks.
"""

from __future__ import annotations

import logging

import numpy as np

from robustforge.types import UserError

log = logging.getLogger(__name__)


def check_labels(y: np.ndarray, num_classes: int, what: str = "y", key: str = "num_classes") -> np.ndarray:
    """Check labels and bring them to int64.

    Args:
        y: (N,) or (N, 1) integers, booleans or whole floats in 0 .. num_classes - 1, or (N, num_classes) one-hot rows.
            All but integers are converted, and a log line says so.
        num_classes: the number of classes, 2 or more.
        what: the name of the array in messages.
        key: the name of ``num_classes`` in messages.

    Returns:
        (N,) int64.

    Raises:
        UserError: names, fractions, NaN, another shape, or labels out of range.

    Example:
        >>> check_labels(np.array([[0, 1], [1, 0]]), num_classes=2)
        array([1, 0])
    """
    if y.dtype.kind not in "biuf":
        raise UserError(
            f"{what} is of type {y.dtype}: store labels as integers 0 .. {num_classes - 1}, "
            "numbered alike in the training and the test set."
        )
    labels = _one_column(y, num_classes, what)
    if labels.dtype.kind == "f":
        # The comparison also refuses NaN; infinity is whole, and is caught by the range.
        if not (labels == np.rint(labels)).all():
            raise UserError(
                f"{what} is of type {y.dtype} with values that are not whole: store labels as integers "
                f"0 .. {num_classes - 1}."
            )
        log.info("%s: whole floats of type %s are taken as labels", what, y.dtype)
    if labels.dtype.kind == "b":
        log.info("%s: False is taken as label 0, True as label 1", what)
    if len(labels):
        _check_range(labels, num_classes, what, key)
    return labels.astype(np.int64)


def _one_column(y: np.ndarray, num_classes: int, what: str) -> np.ndarray:
    if y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
        return y.reshape(-1)
    if y.ndim == 2 and y.shape[1] == num_classes and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all():
        log.info("%s: one-hot rows are taken as labels", what)
        labels: np.ndarray = np.argmax(y, 1)
        return labels
    raise UserError(
        f"{what} has shape {list(y.shape)}: store one label for each image (y.argmax(1) for one-hot rows or "
        f"probabilities of {num_classes} classes)."
    )


def _check_range(labels: np.ndarray, num_classes: int, what: str, key: str) -> None:
    low, high = float(labels.min()), float(labels.max())
    if low >= 0 and high < num_classes:
        return
    found = np.unique(labels)
    if low < 0:
        advice = "labels count from 0, so renumber them, and remove images without a label"
    elif low == 1 and high == num_classes:
        advice = "labels count from 0, so subtract 1"
    elif len(found) == high + 1:
        advice = f"set {key}={int(high) + 1}, or remove the images of the other classes"
    else:
        advice = f"renumber the labels from 0 without gaps, and set {key} to the number of classes"
    raise UserError(f"{what} has labels from {low:.0f} to {high:.0f} where {key} is {num_classes}: {advice}.")


def check_classes(y_train: np.ndarray, y_test: np.ndarray, num_classes: int, what: str, limited: bool) -> None:
    """Check that all declared classes can be learned, and say which ones are not tested.

    Args:
        y_train: (N,) int64 labels in 0 .. num_classes - 1.
        y_test: (M,) int64 likewise. Classes without test images get a warning.
        num_classes: the number of classes.
        what: the name of the data in messages.
        limited: whether ``dataset.limit_train`` is set: classes without training images then get a warning only.

    Raises:
        UserError: a class has no training images, and ``limited`` is false.
    """
    trained, tested = (np.bincount(y, minlength=num_classes) > 0 for y in (y_train, y_test))
    if not trained.all():
        first, advice = _without_training(trained, tested)
        lacking = (
            f"The training images of {what} are of {trained.sum()} classes where dataset.num_classes is {num_classes}, "
            f"and class {first} has none: {advice}"
        )
        if not limited:
            raise UserError(
                f"{lacking}; or keep them as they are with dataset.limit_train={len(y_train)}, to attack a network "
                "that was trained elsewhere on more classes."
            )
        log.warning("%s.", lacking)
    if not (tested | ~trained).all():
        log.warning(
            "%s has no test images of %d of %d classes: results say nothing about these (the first is class %d)",
            what,
            (trained & ~tested).sum(),
            num_classes,
            (trained & ~tested).argmax(),
        )


def _without_training(trained: np.ndarray, tested: np.ndarray) -> tuple[int, str]:
    """The first class that cannot be learned, and what to do."""
    found, first = int(trained.sum()), int((~trained).argmax())
    orphans = tested & ~trained
    if orphans.any():
        return int(orphans.argmax()), "it has test images and would be judged without training, so add training images"
    if found < 2:
        return first, "a classifier needs two classes or more, so add training images of another class"
    if first == found:
        return first, f"set dataset.num_classes={found}"
    return first, f"renumber the labels without gaps and set dataset.num_classes={found}, or add images of it"
