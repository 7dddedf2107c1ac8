"""Adversarial images on disk with their provenance: reused when it matches, refused with the reason when not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from robustforge.data.images import check_adversarial
from robustforge.files import reserve, write_json
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
        UserError: what is there was made with something else, cannot be read, is not what was written, or holds pixels
            that are no image's.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text())
        form, made_with, digest = manifest["format"], dict(manifest["provenance"]), manifest["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is damaged ({error}): remove the folder and make the set again.") from error
    if form != FORMAT:
        raise UserError(f"'{path}' is of format {form}, not {FORMAT}: remove the folder and make the set again.")
    wrong = differences(made_with, json.loads(json.dumps(dict(provenance))))
    if wrong:
        raise UserError(
            f"The adversarial set in {folder} was made with something else: {'; '.join(wrong)}. "
            "Give another folder, or remove that one."
        )
    if digest is None:
        return None
    images = _whole(folder / "images.npy")
    if _digest(images) != digest:
        raise UserError(f"The images in {folder} are not those that were written there: remove it and make it again.")
    check_adversarial(images, f"The adversarial set in {folder}")
    return images


def begin_set(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Makes ``folder`` the place of a set in the making, so that nobody continues it with something else."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, provenance, None)


def close_set(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Declares ``<folder>/images.npy`` finished.

    Raises:
        UserError: some of its images were not attacked yet, or it holds pixels that are no image's.
    """
    images = _whole(folder / "images.npy")
    done = folder / "done.npy"
    if done.exists():
        finished = _whole(done)
        if len(finished) != len(images) or not finished.all():
            raise UserError(
                f"{int(finished.sum())} of the {len(images)} images in {folder} are attacked: make the set again, "
                "which continues it."
            )
    check_adversarial(images, f"The adversarial set in {folder}")
    _write(folder, provenance, _digest(images))
    done.unlink(missing_ok=True)


def begin_images(folder: Path, shape: Sequence[int]) -> None:
    """Makes ``images.npy`` (zeros) and ``done.npy`` (False) in ``folder``, or checks those of an interrupted attempt.

    A file that was cut short must not be opened for writing, which would fill it up with zeros: black images that
    ``done.npy`` calls finished.

    Args:
        folder: of the set in the making.
        shape: (N, C, H, W) of its images.

    Raises:
        UserError: what is there is cut short, or belongs to a set of another size.
    """
    images, done = folder / "images.npy", folder / "done.npy"
    if not images.exists():
        done.unlink(missing_ok=True)  # says what was finished in images that are gone
    for path, dtype, wanted in ((images, "<f4", tuple(shape)), (done, "|b1", tuple(shape[:1]))):
        if not path.exists():
            np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=wanted).flush()
        reserve(path)
        found = _whole(path)
        if found.shape != wanted or found.dtype != np.dtype(dtype):
            raise UserError(
                f"'{path}' has shape {list(found.shape)} and type {found.dtype}, not {list(wanted)} and "
                f"{np.dtype(dtype)}: remove the folder and make the set again."
            )


def _whole(path: Path) -> np.ndarray:
    """A .npy file, mapped for reading."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"'{path}' is missing, cut short or damaged ({error}): remove its folder and make the set again."
        ) from error
    return array


def _write(folder: Path, provenance: Mapping[str, Any], digest: str | None) -> None:
    write_json(folder / "manifest.json", {"format": FORMAT, "provenance": dict(provenance), "sha256": digest})


def _digest(images: np.ndarray) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(images), 1024):
        digest.update(np.ascontiguousarray(images[start : start + 1024]).tobytes())
    return digest.hexdigest()
