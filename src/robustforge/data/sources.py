"""From a data set's name, or a path, to four checked arrays in memory (or mapped from the disk)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from robustforge.data import torchvision_sources
from robustforge.data.archives import read_npz
from robustforge.data.celeba import read_celeba
from robustforge.data.folders import read_coil100, read_image_folder
from robustforge.data.integrity import as_labels, as_pixels, check_sha256
from robustforge.hints import near_miss
from robustforge.types import UserError

KINDS = ("digits", "torchvision", "coil100", "celeba", "npz", "imagefolder")
Raw = dict[str, np.ndarray]


@dataclass(frozen=True)
class Arrays:
    """A data set.

    Attributes:
        x_train: (N, C, H, W) uint8, or float32 in [0, 1] for floats that are no 8-bit pixels; may be a copy-on-write
            memory map.
        y_train: (N,) int64.
        x_test: (M, C, H, W) likewise, for itself.
        y_test: (M,) int64.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def data_root(data_dir: str | Path | None) -> Path:
    """The folder of the data sets: ``data_dir``, else the environment variable ROBUSTFORGE_DATA, else ``data``."""
    return Path(str(data_dir or "") or os.environ.get("ROBUSTFORGE_DATA", "") or "data").expanduser()


def load_arrays(
    name: str,
    kind: str,
    data_dir: str | Path | None,
    download: bool,
    shape: Sequence[int],
    num_classes: int,
    sha256: str | None = None,
    path: str | Path | None = None,
) -> Arrays:
    """Load and check a data set.

    Args:
        name: the name of the set, of its archive ``<data_dir>/<name>.npz`` and of its folder ``<data_dir>/<name>``.
        kind: ``digits`` (scikit-learn's, no files), ``torchvision`` (mnist, fashion_mnist, cifar10, svhn), ``coil100``,
            ``celeba``, ``npz`` or ``imagefolder``. An archive goes before torchvision's files, and those before its
            download.
        data_dir: see :func:`data_root`.
        download: whether a torchvision set may be fetched from the network.
        shape: (C, H, W). Arrays must have it; image files are resized to it.
        num_classes: labels are 0 .. num_classes - 1.
        sha256: the hash of the .npz archive, or None for no check.
        path: the archive or folder, in place of the one below ``data_dir``.

    Raises:
        UserError: the data is missing, damaged, or not what the other arguments promise.
    """
    if kind not in KINDS:
        raise UserError(f"dataset.kind is '{kind}'{near_miss(kind, KINDS)}: choose one of {', '.join(KINDS)}.")
    place = Path(path).expanduser() if path else None
    archive = _archive(name, kind, data_root(data_dir), place)
    if archive is not None:
        if archive.is_file():
            check_sha256(archive, sha256)
        raw, origin = read_npz(archive), f"'{archive}'"
    elif sha256 is not None:
        raise UserError(
            f"dataset.sha256 is set and '{name}' does not come from an .npz archive: set dataset.sha256=null."
        )
    else:
        raw = _from_files(name, kind, data_root(data_dir), place, download, shape)
        origin = f"data set '{name}'" + (f" in '{place}'" if place else "")
    return _checked(raw, shape, num_classes, origin)


def _archive(name: str, kind: str, root: Path, place: Path | None) -> Path | None:
    """The .npz to read, if the data comes from one."""
    if kind == "npz":
        return place or root / f"{name}.npz"
    if place is not None and place.suffix == ".npz":
        return place
    named = root / f"{name}.npz"
    return named if place is None and kind in ("torchvision", "coil100", "celeba") and named.is_file() else None


def _from_files(name: str, kind: str, root: Path, place: Path | None, download: bool, shape: Sequence[int]) -> Raw:
    if kind == "digits":
        return digits(shape)
    if kind == "imagefolder":
        return read_image_folder(place or root / name, shape)
    if kind == "coil100":
        folders = [place] if place else [root / "coil-100", root / "coil100"]
        for folder in folders:
            found = read_coil100(folder, shape)
            if found is not None:
                return found
        raise UserError(
            f"'{root / name}.npz' and '{folders[0]}' do not exist or are empty: unpack COIL-100 (obj1__0.png ..) into "
            f"'{folders[0]}', or set paths.data_dir (ROBUSTFORGE_DATA) to the folder that has it."
        )
    if kind == "celeba":
        faces = read_celeba(place or root / "celeba", shape)
        if faces is not None:
            return faces
        raise UserError(
            f"'{root / name}.npz' and the lists of '{place or root / 'celeba'}' do not exist: put torchvision's files "
            "of CelebA there, or set paths.data_dir (ROBUSTFORGE_DATA) to the folder that has it."
        )
    return _from_torchvision(name, place or root, download)


def _from_torchvision(name: str, root: Path, download: bool) -> Raw:
    if name not in torchvision_sources.FORMATS:
        known = ", ".join(torchvision_sources.FORMATS)
        raise UserError(f"dataset.name is '{name}', which is none of {known}: use dataset=npz for arrays of your own.")
    found = torchvision_sources.read_torchvision_files(name, root)
    problem = "dataset.download is false"
    if found is None and download:
        try:
            torchvision_sources.download(name, root)
        # torchvision and urllib raise many types for one fact: the files did not come.
        except Exception as error:
            problem = f"the download failed: {str(error).strip() or type(error).__name__}"
        found = torchvision_sources.read_torchvision_files(name, root)
    if found is None:
        raise UserError(
            f"'{root / name}.npz' does not exist, nor do torchvision's files in '{root}', and {problem}: put one of "
            "them there, or set paths.data_dir (ROBUSTFORGE_DATA) to the folder that has it."
        )
    return found


def _checked(raw: Raw, shape: Sequence[int], num_classes: int, origin: str) -> Arrays:
    parts: Raw = {}
    for part in ("train", "test"):
        images = as_pixels(raw[f"x_{part}"], shape, f"x_{part} of {origin}")
        # Mapped arrays stay where they are: a copy in the right layout would not fit in memory.
        parts[f"x_{part}"] = images if isinstance(images, np.memmap) else np.ascontiguousarray(images)
        parts[f"y_{part}"] = as_labels(raw[f"y_{part}"], len(images), num_classes, f"y_{part} of {origin}")
    return Arrays(**parts)


def digits(shape: Sequence[int] = (1, 28, 28), seed: int = 0) -> Raw:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8 with values 0 .. 16, scaled to 0 .. 255 and resized bilinearly.

    Args:
        shape: (1, H, W).
        seed: of the stratified split into 80 % training and 20 % test images.
    """
    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)
    pixels = F.interpolate(pixels, size=tuple(shape[1:]), mode="bilinear", align_corners=False)
    images = pixels.round().to(torch.uint8).numpy()
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=seed, stratify=labels)
    return {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}
