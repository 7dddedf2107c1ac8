"""Folders of image files: a class a folder (ImageNet's layout), and COIL-100's flat folder of views."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS, default_loader
from torchvision.transforms.v2 import functional as image_ops

from robustforge.files import atomic_write
from robustforge.types import UserError

CHUNK = 1024
"""Images decoded before the next ones are queued."""

COIL_NAME = re.compile(r"obj(\d+)__(\d+)\.(?:png|ppm|jpg)$")


def _decode(path: Path, shape: Sequence[int]) -> np.ndarray:
    """One image as uint8 (C, H, W): resized so that it covers (H, W) with antialiasing, then cropped at the center."""
    channels, height, width = shape
    try:
        image = default_loader(str(path)).convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"'{path}' is not a readable image ({error}): delete it or fetch it again.") from error
    scale = max(height / image.height, width / image.width)
    size = [max(height, round(image.height * scale)), max(width, round(image.width * scale))]
    image = image_ops.center_crop(image_ops.resize(image, size, antialias=True), [height, width])
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decode_all(files: Sequence[Path], shape: Sequence[int], cache: Path) -> np.ndarray:
    """Decode ``files`` once into a .npy below ``cache`` and map it (copy-on-write: the file is never changed).

    Args:
        files: images, in the order of the result.
        shape: (C, H, W) of the result; C is 1 (gray) or 3.
        cache: folder for the .npy, whose name holds a hash of the shape and of the files' names, sizes and dates.

    Raises:
        UserError: an unreadable image, a channel count other than 1 or 3, or a folder that cannot be written.
    """
    if shape[0] not in (1, 3):
        raise UserError(
            f"dataset.shape is {list(shape)}: image files have 1 or 3 channels, so set dataset.shape=[3,H,W]."
        )
    stats = [(str(file.relative_to(cache.parent)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((tuple(shape), stats)).encode()).hexdigest()[:16]
    target = cache / f"{'x'.join(map(str, shape))}-{key}.npy"
    if not target.is_file():
        try:
            with atomic_write(target) as temporary, ThreadPoolExecutor() as pool:
                out = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(files), *shape))
                for start in range(0, len(files), CHUNK):
                    chunk = files[start : start + CHUNK]
                    out[start : start + len(chunk)] = list(pool.map(lambda file: _decode(file, shape), chunk))
                out.flush()
                del out
        except OSError as error:
            raise UserError(
                f"'{cache}' cannot be written ({error}): free some disk space or make the folder writable."
            ) from error
    return np.load(target, mmap_mode="c")


def _list_classes(folder: Path, classes: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
        files += found
        labels += [label] * len(found)
    return files, np.asarray(labels, np.int64)


def read_image_folder(root: Path, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Read ``root/train/<class>/*`` and ``root/val/<class>/*`` (or ``root/test``); classes are numbered by name.

    Raises:
        UserError: folders are missing or empty, or a class of the test images has no training folder.
    """
    train = root / "train"
    test = next((root / name for name in ("val", "test") if (root / name).is_dir()), root / "val")
    for folder in (train, test):
        if not folder.is_dir():
            raise UserError(
                f"'{folder}' does not exist: set dataset.path to a folder with train/<class>/ and val/<class>/."
            )
    classes = sorted(path.name for path in train.iterdir() if path.is_dir())
    strangers = sorted({path.name for path in test.iterdir() if path.is_dir()} - set(classes))
    if strangers:
        raise UserError(
            f"'{test / strangers[0]}' has no folder of that name in '{train}': name the classes alike in both."
        )
    arrays: dict[str, np.ndarray] = {}
    for part, folder in (("train", train), ("test", test)):
        files, labels = _list_classes(folder, classes)
        if not files:
            raise UserError(
                f"'{folder}' holds no images in class folders: put them at {folder.name}/<class>/<image>.png."
            )
        arrays[f"x_{part}"] = decode_all(files, shape, root / ".robustforge-cache")
        arrays[f"y_{part}"] = labels
    return arrays


def read_coil100(root: Path, shape: Sequence[int]) -> dict[str, np.ndarray] | None:
    """Read the flat folder of COIL-100 (``obj1__0.png`` .. ``obj100__355.png``, a view each 5 degrees).

    Every fourth view (angles that are multiples of 20 degrees) is a test image, so that test views lie between
    training views: 5,400 training and 1,800 test images of the whole set.

    Returns:
        The four arrays, or None where ``root`` has no such file.
    """
    names = sorted(root.iterdir()) if root.is_dir() else []
    views = sorted((int(m[1]), int(m[2]), path) for path in names if (m := COIL_NAME.fullmatch(path.name)))
    if not views:
        return None
    arrays: dict[str, np.ndarray] = {}
    for part, chosen in (
        ("train", [view for view in views if view[1] % 20]),
        ("test", [view for view in views if not view[1] % 20]),
    ):
        arrays[f"x_{part}"] = decode_all([path for _, _, path in chosen], shape, root / ".robustforge-cache")
        arrays[f"y_{part}"] = np.asarray([number - 1 for number, _, _ in chosen], np.int64)
    return arrays
