"""Adversarial images on disk with their provenance: reused when it matches, refused with the reason when not."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustforge.data.images import check_adversarial
from robustforge.files import reserve, write_json
from robustforge.manifest import read_object, set_aside
from robustforge.types import DamagedError, UserError

log = logging.getLogger(__name__)
FORMAT = 2
FREE = ("versions",)  # told, not compared: another version is a warning's matter, not a refusal's


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
        UserError: the folder holds something else; what is there was made with something else, cannot be read, is not
            what was written, or holds pixels that are no image's.
    """
    path = folder / "manifest.json"
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} holds other files and no adversarial set: give another folder.")
        return None
    try:
        manifest = read_object(path)
        form, made_with, digest = manifest["format"], dict(manifest["provenance"]), manifest["sha256"]
    except DamagedError as error:
        raise UserError(f"{str(error).rstrip('.')}: remove the folder and make the set again.") from error
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
                f"{np.count_nonzero(finished)} of the {len(images)} images in {folder} are attacked: make the set "
                "again, which continues it."
            )
    check_adversarial(images, f"The adversarial set in {folder}")
    _write(folder, provenance, _digest(images))
    done.unlink(missing_ok=True)


def begin_images(folder: Path, shape: Sequence[int]) -> None:
    """Makes ``images.npy`` (zeros) and ``done.npy`` (zeros) in ``folder``, or checks those of an interrupted attempt.

    ``done.npy`` (N,) holds the :func:`marks` of the images that are finished, 0 for the others. Images that are not
    what their mark says are attacked again, and files of another size make way; a log line says which.

    Args:
        folder: of the set in the making.
        shape: (N, C, H, W) of its images.
    """
    images, done = folder / "images.npy", folder / "done.npy"
    for path, dtype, wanted in ((images, "<f4", tuple(shape)), (done, "<u8", tuple(shape[:1]))):
        if path.exists():
            _make_way(path, wanted, dtype)
    if not images.exists():
        done.unlink(missing_ok=True)  # says what was finished in images that are gone
    for path, dtype, wanted in ((images, "<f4", tuple(shape)), (done, "<u8", tuple(shape[:1]))):
        if not path.exists():
            np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=wanted).flush()
        reserve(path)
    _unmark_damaged(images, done)


def marks(images: np.ndarray) -> np.ndarray:
    """(B,) uint64: a hash of each image's pixels (B, C, H, W), never 0. It marks the image as finished."""
    found = [hashlib.blake2b(np.ascontiguousarray(one).tobytes(), digest_size=8).digest() for one in images]
    return np.array([int.from_bytes(digest, "little") | 1 for digest in found], np.uint64)


def _make_way(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Sets a file of a set in the making aside unless it can be continued.

    One that was cut short must not be opened for writing, which would fill it up with zeros.
    """
    try:
        found = _whole(path)
    except UserError:
        set_aside(path, f"'{path}' is cut short or damaged.")
        return
    if found.shape != shape or found.dtype != np.dtype(dtype):
        set_aside(
            path, f"'{path}' has shape {list(found.shape)} and type {found.dtype}, not {list(shape)} and {dtype}."
        )


def _unmark_damaged(images: Path, done: Path) -> None:
    """Removes the marks of images that are not what was written."""
    pixels, marked = _whole(images), np.lib.format.open_memmap(done, mode="r+")
    finished = np.flatnonzero(marked)
    damaged = [row for row in finished if marks(pixels[row : row + 1])[0] != marked[row]]
    if damaged:
        log.warning("'%s': %d of %d images are damaged and are attacked again", images, len(damaged), len(finished))
        marked[damaged] = 0
        marked.flush()


def _whole(path: Path) -> np.ndarray:
    """A .npy file, mapped for reading."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
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
