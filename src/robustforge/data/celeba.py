"""CelebA from the files that torchvision leaves on the disk (Liu et al., 2015): faces, and one of their attributes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustforge.data.folders import CACHE, decode_all
from robustforge.types import UserError

LABEL = "Male"  # of the forty attributes, the one that halves the set best among those that a face shows
PARTS = {"train": "0", "test": "2"}  # of list_eval_partition.txt; 1, the validation images, are left out


def read_celeba(root: Path, shape: Sequence[int]) -> dict[str, np.ndarray] | None:
    """Read ``root/img_align_celeba/*.jpg`` with ``list_eval_partition.txt`` and ``list_attr_celeba.txt`` beside it.

    Args:
        root: torchvision's folder, ``<data_dir>/celeba``.
        shape: (C, H, W); the 178 x 218 pixels are resized to cover (H, W) and cropped at the center.

    Returns:
        The four arrays, labels 1 where the attribute ``Male`` is set; 162,770 training and 19,962 test images of the
        whole set. None where one of the two lists is absent.

    Raises:
        UserError: the lists are damaged or name images that are not there, or an image cannot be read.
    """
    parts, attributes = root / "list_eval_partition.txt", root / "list_attr_celeba.txt"
    if not (parts.is_file() and attributes.is_file()):
        return None
    part_of = {words[0]: words[1] for words in _lines(parts) if len(words) == 2}
    _, names, *rows = _lines(attributes)
    if LABEL not in names or any(len(words) != len(names) + 1 for words in rows):
        raise UserError(f"'{attributes}' is not CelebA's list of attributes: fetch it again.")
    label_of = {words[0]: int(words[1 + names.index(LABEL)] == "1") for words in rows}
    arrays: dict[str, np.ndarray] = {}
    for part, number in PARTS.items():
        chosen = [name for name, place in part_of.items() if place == number and name in label_of]
        files = [root / "img_align_celeba" / name for name in chosen]
        missing = next((file for file in files if not file.is_file()), None)
        if missing is not None or not files:
            raise UserError(
                f"'{missing or parts}' {'does not exist' if missing else f'lists no {part} images'}: unpack "
                f"img_align_celeba.zip into '{root}', or fetch CelebA's lists again."
            )
        arrays[f"x_{part}"] = decode_all(files, shape, root / CACHE)
        arrays[f"y_{part}"] = np.asarray([label_of[name] for name in chosen], np.int64)
    return arrays


def _lines(path: Path) -> list[list[str]]:
    """The words of every line that has any."""
    try:
        return [words for line in path.read_text().splitlines() if (words := line.split())]
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is no text file: fetch it again.") from error
