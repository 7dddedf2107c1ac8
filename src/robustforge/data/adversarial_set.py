"""Adversarial images on disk with their provenance: reused when it matches, refused with the reason when not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from robustforge.files import write_json
from robustforge.types import UserError

FORMAT = 1
FREE = ("versions",)  # told, not compared: another version is a warning's matter, not a refusal's


def model_hash(modules: nn.Module) -> str:
    """SHA-256 over names, shapes and values of all parameters and buffers, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(modules.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What differs between two provenances, one readable entry a key; :data:`FREE` keys are left out."""
    keys = sorted((set(theirs) | set(ours)) - set(FREE))
    unlike = [key for key in keys if theirs.get(key) != ours.get(key)]
    return [f"{key} ({theirs.get(key)!r} there, {ours.get(key)!r} wanted)" for key in unlike]


def open_set(folder: Path, provenance: Mapping[str, Any]) -> np.ndarray | None:
    """The images of a finished set, (N, C, H, W) float32 in [0, 1], memory-mapped; None when it is not finished.

    Args:
        folder: of the set.
        provenance: what it must have been made with: plain JSON values.

    Raises:
        UserError: what is there was made with something else, or its images are not what was written.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return None
    manifest = json.loads(path.read_text())
    wrong = differences(manifest["provenance"], json.loads(json.dumps(dict(provenance))))
    if wrong:
        raise UserError(
            f"The adversarial set in {folder} was made with something else: {'; '.join(wrong)}. "
            "Give another folder, or remove that one."
        )
    if manifest["sha256"] is None:
        return None
    images: np.ndarray = np.load(folder / "images.npy", mmap_mode="r")
    if _digest(images) != manifest["sha256"]:
        raise UserError(f"The images in {folder} are not those that were written there: remove it and make it again.")
    return images


def begin_set(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Makes ``folder`` the place of a set in the making, so that nobody continues it with something else."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, provenance, None)


def close_set(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Declares ``<folder>/images.npy`` finished."""
    _write(folder, provenance, _digest(np.load(folder / "images.npy", mmap_mode="r")))
    (folder / "done.npy").unlink(missing_ok=True)


def _write(folder: Path, provenance: Mapping[str, Any], digest: str | None) -> None:
    write_json(folder / "manifest.json", {"format": FORMAT, "provenance": dict(provenance), "sha256": digest})


def _digest(images: np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(images), 1024):
        digest.update(np.ascontiguousarray(images[start : start + 1024]).tobytes())
    return digest.hexdigest()
