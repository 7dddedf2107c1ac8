"""Folders of image files: a class a folder (ImageNet's layout), and COIL-100's flat folder of views."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from robustforge.data.decoding import decode_into
from robustforge.files import atomic_write
from robustforge.manifest import set_aside
from robustforge.types import UserError

log = logging.getLogger(__name__)

DECODER = 2
"""Part of the cache's name: raised when files are decoded to other pixels than before."""

COIL_NAME = re.compile(r"obj(\d+)__(\d+)\.(?:png|ppm|jpg)$")
CACHE = ".robustforge-cache"
SYSTEM = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini")
UNREAD = (".heic", ".heif", ".npy", ".npz")
"""Images that Pillow does not know by themselves; what it knows beyond torchvision's list is not read either."""


def decode_all(files: Sequence[Path], shape: Sequence[int], cache: Path) -> np.ndarray:
    """Decode ``files`` once into a .npy below ``cache`` and map it (copy-on-write: the file is never changed).

    Args:
        files: images, in the order of the result.
        shape: (C, H, W) of the result; C is 1 (gray) or 3.
        cache: folder for the .npy, whose name holds a hash of the shape and of the files' names, sizes and dates.

    Returns:
        (N, C, H, W) uint8. Files with more than 8 bits a channel are rounded to 8, and a warning says so.

    Raises:
        UserError: an unreadable image, a channel count other than 1 or 3, or a folder that cannot be written.
    """
    if shape[0] not in (1, 3):
        raise UserError(
            f"dataset.shape is {list(shape)}: image files have 1 or 3 channels, so set dataset.shape=[3,H,W]."
        )
    stats = [(str(file.relative_to(cache.parent)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((DECODER, tuple(shape), stats)).encode()).hexdigest()[:16]
    target = cache / f"{'x'.join(map(str, shape))}-{key}.npy"
    if not _is_whole(target, (len(files), *shape)):
        try:
            with atomic_write(target) as temporary:
                deep = decode_into(temporary, files, shape)
        except OSError as error:
            raise UserError(
                f"'{cache}' cannot be written ({error}): free some disk space or make the folder writable."
            ) from error
        if deep:
            log.warning(
                "%d images have more than 8 bits a channel and are rounded to 8 (the first is '%s'); an .npz of floats "
                "keeps all bits, which adversarial images need",
                len(deep),
                deep[0],
            )
    images: np.ndarray = np.load(target, mmap_mode="c", allow_pickle=False)
    return images


def _is_whole(target: Path, shape: tuple[int, ...]) -> bool:
    """Whether the decoded images are there; a file that was cut short is set aside."""
    if not target.is_file():
        return False
    try:
        if np.load(target, mmap_mode="r", allow_pickle=False).shape == shape:
            return True
    except (OSError, ValueError, EOFError):
        pass
    set_aside(target, f"'{target}' is cut short or damaged.")
    return False


def _split_off_hidden(paths: Sequence[Path], folder: Path, hidden: set[str]) -> list[Path]:
    """``paths`` below ``folder`` without those that are, or lie in, hidden or system entries, noted in ``hidden``."""
    kept = []
    for path in paths:
        names = [name for name in path.relative_to(folder).parts if name.startswith(".") or name in SYSTEM]
        hidden.update(names[:1])
        if not names:
            kept.append(path)
    return kept


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, both sorted; a log line says what is ignored.

    Raises:
        UserError: a class folder without images, or an image of a format that is not read.
    """
    hidden: set[str] = set()
    entries = _split_off_hidden(sorted(folder.iterdir()), folder, hidden)
    ignored = [path for path in entries if not path.is_dir()]
    classes: dict[str, list[Path]] = {}
    for place in (path for path in entries if path.is_dir()):
        files = [path for path in _split_off_hidden(sorted(place.rglob("*")), place, hidden) if path.is_file()]
        classes[place.name] = [path for path in files if path.suffix.lower() in IMG_EXTENSIONS]
        others = [path for path in files if path.suffix.lower() not in IMG_EXTENSIONS]
        for path in others:
            if path.suffix.lower() in Image.registered_extensions() or path.suffix.lower() in UNREAD:
                raise UserError(f"'{path}' is of a format that is not read here: convert it to PNG, or move it away.")
        if not classes[place.name]:
            raise UserError(f"The class folder '{place}' holds no images: put some there, or delete the folder.")
        ignored += others
    if hidden:
        log.info("'%s': hidden and system entries are ignored (%s)", folder, ", ".join(sorted(hidden)[:9]))
    if ignored:
        log.warning(
            "'%s': %d files are ignored, which are no images or lie in no class folder (the first is '%s')",
            folder,
            len(ignored),
            ignored[0],
        )
    return classes


def read_image_folder(root: Path, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Read ``root/train/<class>/*`` and ``root/val/<class>/*`` (or ``root/test``); classes are numbered by name.

    Hidden and system files and folders (``.ipynb_checkpoints``, ``__MACOSX`` ..) are ignored, and a log line says so.

    Raises:
        UserError: folders are missing or empty, a file is no image that can be read, or a class of the test images has
            no training folder.
    """
    train = root / "train"
    test = next((root / name for name in ("val", "test") if (root / name).is_dir()), root / "val")
    for folder in (train, test):
        if not folder.is_dir():
            raise UserError(
                f"'{folder}' does not exist: set dataset.path to a folder with train/<class>/ and val/<class>/."
            )
    found = {"train": _list_classes(train), "test": _list_classes(test)}
    classes = list(found["train"])
    for folder, names in ((train, classes), (test, list(found["test"]))):
        if not names:
            raise UserError(
                f"'{folder}' holds no images in class folders: put them at {folder.name}/<class>/<image>.png."
            )
        strangers = sorted(set(names) - set(classes))
        if strangers:
            raise UserError(
                f"'{folder / strangers[0]}' has no folder of that name in '{train}': name the classes alike in both."
            )
    arrays: dict[str, np.ndarray] = {}
    for part, files in found.items():
        arrays[f"x_{part}"] = decode_all([path for paths in files.values() for path in paths], shape, root / CACHE)
        arrays[f"y_{part}"] = np.repeat([classes.index(name) for name in files], [len(p) for p in files.values()])
    return arrays


def read_coil100(root: Path, shape: Sequence[int]) -> dict[str, np.ndarray] | None:
    """Read the flat folder of COIL-100 (``obj1__0.png`` .. ``obj100__355.png``, a view each 5 degrees).

    Every fourth view (angles that are multiples of 20 degrees) is a test image, so that test views lie between
    training views: 5,400 training and 1,800 test images of the whole set.

    Returns:
        The four arrays, or None where ``root`` has no such file.

    Raises:
        UserError: all views are test views or all are training views, or an image cannot be read.
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
        if not chosen:
            raise UserError(f"'{root}' holds no {part} views of COIL-100: unpack all views, 5 degrees apart, into it.")
        arrays[f"x_{part}"] = decode_all([path for _, _, path in chosen], shape, root / CACHE)
        arrays[f"y_{part}"] = np.asarray([number - 1 for number, _, _ in chosen], np.int64)
    return arrays
