"""MNIST, Fashion-MNIST, CIFAR-10, SVHN: the files that torchvision leaves on the disk, and its downloads."""

from __future__ import annotations

import gzip
import math
import os
import pickle
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustforge.data.archives import NAMES, damaged

Raw = dict[str, np.ndarray]
MOST = 1 << 30  # bytes of an IDX file: twenty times the largest that there is here; gzip makes gigabytes out of nothing


def _idx(path: Path) -> np.ndarray:
    """An IDX file, plain or gzipped: two zero bytes, type 8 (uint8), number of dimensions, big-endian sizes, data."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as handle:
        zero, kind, dimensions = struct.unpack(">HBB", handle.read(4))
        if zero != 0 or kind != 8:
            raise ValueError("not an IDX file of bytes")
        shape = struct.unpack(f">{dimensions}I", handle.read(4 * dimensions))
        if math.prod(shape) > MOST:
            raise ValueError(f"its header promises shape {list(shape)}")
        content = handle.read(math.prod(shape) + 1)  # one more than promised: a longer file is damaged as well
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


class _ArraysOnly(pickle.Unpickler):
    """Unpickles dictionaries, lists, text and NumPy arrays; a file that asks for anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        plain = {"_reconstruct", "_frombuffer", "ndarray", "dtype"}
        if (module.split(".")[0] == "numpy" and name in plain) or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _cifar(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Batches of rows of 3072 bytes, channel by channel, with a list of labels."""
    images, labels = [], []
    for path in paths:
        with path.open("rb") as handle:
            batch = _ArraysOnly(handle, encoding="latin1").load()
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        if batch["data"].nbytes > path.stat().st_size:
            raise ValueError("it promises more pixels than it holds")
        images.append(np.asarray(batch["data"]).reshape(-1, 3, 32, 32))
        labels.append(np.asarray(batch["labels"]))
    return np.concatenate(images), np.concatenate(labels)


def _svhn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A MATLAB file: X (32, 32, 3, N), y (N, 1) where 10 stands for the digit 0."""
    from scipy.io import loadmat  # scikit-learn brings scipy; only this format needs it

    content = loadmat(str(path))
    labels = content["y"].reshape(-1)
    return np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1)), np.where(labels == 10, 0, labels)


def _read_idx_folder(files: Sequence[Path]) -> Raw:
    return dict(zip(NAMES, map(_idx, files), strict=True))


def _read_cifar10(files: Sequence[Path]) -> Raw:
    return dict(zip(NAMES, (*_cifar(files[:-1]), *_cifar(files[-1:])), strict=True))


def _read_svhn(files: Sequence[Path]) -> Raw:
    return dict(zip(NAMES, (*_svhn(files[0]), *_svhn(files[1])), strict=True))


def _idx_files(folder: str) -> list[str]:
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return [f"{folder}/raw/{stem}-ubyte" for stem in stems]


FORMATS: dict[str, tuple[list[str], Callable[[Sequence[Path]], Raw], str, tuple[dict[str, Any], ...]]] = {
    "mnist": (_idx_files("MNIST"), _read_idx_folder, "MNIST", ({"train": True},)),
    "fashion_mnist": (_idx_files("FashionMNIST"), _read_idx_folder, "FashionMNIST", ({"train": True},)),
    "cifar10": (
        [f"cifar-10-batches-py/{name}" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")],
        _read_cifar10,
        "CIFAR10",
        ({"train": True},),
    ),
    "svhn": (["train_32x32.mat", "test_32x32.mat"], _read_svhn, "SVHN", ({"split": "train"}, {"split": "test"})),
}
"""Name -> (files below data_dir, reader, torchvision's class, the calls that download everything)."""


def present(root: Path) -> tuple[list[str], list[str]]:
    """Names of the sets whose files (an archive or torchvision's) are below ``root``, and of those that are not."""
    there = [
        name
        for name, (files, *_) in FORMATS.items()
        if (root / f"{name}.npz").is_file() or all(_existing(root / file) for file in files)
    ]
    return there, [name for name in FORMATS if name not in there]


def _existing(path: Path) -> Path | None:
    zipped = path.with_name(path.name + ".gz")
    return path if path.is_file() else zipped if zipped.is_file() else None


def read_torchvision_files(name: str, root: Path) -> Raw | None:
    """Read what torchvision once downloaded to ``root``.

    Returns:
        The four arrays as stored, or None where at least one file is absent.

    Raises:
        UserError: the files are there and one of them is truncated or damaged.
    """
    files, reader, _, _ = FORMATS[name]
    found = [path for path in (_existing(root / file) for file in files) if path is not None]
    if len(found) < len(files):
        return None
    try:
        return reader(found)
    # Readers of damaged files raise whatever the damage leads them to; all of it means the same to the user.
    except Exception as error:
        raise damaged(found[0].parent if len(files) > 2 else found[0], error) from error


def download(name: str, root: Path) -> None:
    """Let torchvision download ``name`` to a temporary folder, then move each finished file below ``root``.

    Raises:
        Exception: whatever torchvision and the network raise; nothing half-written stays behind.
    """
    import torchvision

    _, _, class_name, calls = FORMATS[name]
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        for call in calls:
            getattr(torchvision.datasets, class_name)(str(temporary), download=True, **call)
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            target = root / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
