"""Content-addressed store of what stages produce: the same description is made once, by whichever run comes first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robustforge.data.images import check_adversarial
from robustforge.defenses.base import LARGEST, in_range
from robustforge.files import write_json
from robustforge.fingerprint import code_state
from robustforge.manifest import MANIFEST, check_files, hashes, read_object, set_aside
from robustforge.types import DamagedError, DivergedError, UserError


@dataclass(frozen=True)
class Artifact:
    """One finished product.

    Attributes:
        folder: where it lies.
        key: of its description.
        code: which code made it, see :func:`robustforge.fingerprint.code_state`.
        seconds: that making it took, since it was last interrupted; None where an earlier version made it.
    """

    folder: Path
    key: str
    code: Mapping[str, Any]
    seconds: float | None = None

    @property
    def by_other_code(self) -> bool:
        """Whether the package's source was another one when it was made."""
        return bool(self.code.get("source") != code_state()["source"])

    def check_modules(self, owner: nn.Module, names: tuple[str, ...]) -> None:
        """Raises DamagedError unless the stored weights have the names, shapes and types of the submodules ``names``.

        Weights that another version of the package stored may not fit any more.
        """
        path = self.folder / "weights.safetensors"
        wanted = {key: (tuple(value.shape), value.dtype) for key, value in _state(owner, names).items()}
        try:
            stored = {key: (tuple(value.shape), value.dtype) for key, value in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise DamagedError(f"'{path}' is damaged: {error}.") from error
        if stored != wanted:
            raise DamagedError(f"'{path}' holds weights of other networks.")

    def load_modules(self, owner: nn.Module, names: tuple[str, ...]) -> None:
        """Loads the stored weights into ``owner``'s submodules ``names``."""
        tensors = load_file(self.folder / "weights.safetensors")
        for name in names:
            prefix = f"{name}."
            getattr(owner, name).load_state_dict(
                {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            )

    def check_images(self, shape: tuple[int, ...]) -> None:
        """Raises DamagedError unless the stored images have this shape (N, C, H, W) and are floats in [0, 1]."""
        path = self.folder / "images.npy"
        try:
            images = self.load_images()
        except (OSError, ValueError, EOFError) as error:
            raise DamagedError(f"'{path}' is damaged: {error}.") from error
        if images.shape != shape:
            raise DamagedError(f"'{path}' is damaged: it has shape {list(images.shape)}, not {list(shape)}.")
        try:
            check_adversarial(images, f"'{path}'")
        except UserError as error:
            raise DamagedError(str(error)) from error

    def load_images(self) -> np.ndarray:
        """The adversarial set, (N, C, H, W) float32 in [0, 1], memory-mapped."""
        images: np.ndarray = np.load(self.folder / "images.npy", mmap_mode="r", allow_pickle=False)
        return images


class ArtifactStore:
    """A folder of products, ``<stage>-<key>``, each complete or absent.

    Args:
        root: the folder; made when missing.

    Raises:
        UserError: the folder cannot be written, or is a run's.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        if (self.root / "config.yaml").exists():
            raise UserError(f"The store {self.root} is the folder of a run: set paths.store_dir to another folder.")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"The artifact store {self.root} cannot be written ({error.strerror}): set paths.store_dir to a folder "
                "you may write."
            ) from error

    def find(self, name: str, key: str) -> Artifact | None:
        """The finished product, or None.

        Raises:
            DamagedError: one of its files is not what was written, or belongs to another key.
        """
        folder = self.folder(name, key)
        path = folder / MANIFEST
        if not path.exists():
            return None
        manifest = read_object(path)
        code = manifest.get("code")
        if manifest.get("key") != key or not isinstance(code, dict):
            raise DamagedError(f"'{path}' is damaged: it is not the manifest of this product.")
        check_files(folder, manifest.get("files"), path)
        return Artifact(folder, key, code, manifest.get("seconds"))

    def folder(self, name: str, key: str) -> Path:
        """Where the product lies, or will lie."""
        return self.root / f"{name}-{key[:16]}"

    def workspace(self, name: str, key: str) -> Path:
        """Folder of the product in the making; what an interrupted run left there is found again."""
        folder = self.root / ".partial" / f"{name}-{key[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def lock_path(self, name: str, key: str) -> Path:
        """File that two runs wanting the same product lock in turn."""
        (self.root / ".partial").mkdir(exist_ok=True)
        return self.root / ".partial" / f"{name}-{key[:16]}.lock"

    def commit(
        self, name: str, key: str, description: dict[str, Any], keep: tuple[str, ...], seconds: float | None = None
    ) -> Artifact:
        """Moves a workspace into place in one rename, with only the files ``keep`` and a manifest.

        Args:
            name: of the stage.
            key: of the description.
            description: written as the manifest.
            keep: file names that make up the product.
            seconds: that making it took.
        """
        workspace = self.workspace(name, key)
        for entry in workspace.iterdir():
            if entry.name not in keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        files = hashes(workspace, keep)
        made = {"key": key, "code": code_state(), "files": files, "seconds": seconds}
        write_json(workspace / MANIFEST, {**made, **description})
        target = self.folder(name, key)
        if (target / MANIFEST).exists():  # made again
            shutil.rmtree(target)
        elif target.exists():
            set_aside(target, f"'{target}' has no manifest.")
        os.replace(workspace, target)
        return Artifact(target, key, code_state(), seconds)


def save_modules(path: Path, owner: nn.Module, names: tuple[str, ...]) -> None:
    """Writes the weights of ``owner``'s submodules ``names`` as safetensors.

    Raises:
        DivergedError: a weight is not finite.
    """
    check_finite(owner, names)
    # copies: safetensors refuses tied weights that share memory
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in _state(owner, names).items()}, path)


def _state(owner: nn.Module, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Parameters and buffers of ``owner``'s submodules ``names``, under the names that they are stored by."""
    return {f"{name}.{key}": value for name in names for key, value in getattr(owner, name).state_dict().items()}


def check_finite(owner: nn.Module, names: tuple[str, ...], when: str = "at its end") -> None:
    """Raises DivergedError where a parameter of ``owner``'s submodules ``names`` is not in range."""
    for name in names:
        for key, value in getattr(owner, name).named_parameters():
            if not in_range(value):
                raise DivergedError(
                    f"Training diverged {when}: the weights {name}.{key} are NaN, infinite or beyond {LARGEST:.0e}. "
                    "Nothing was stored; lower the learning rate (optimizer.lr) or clip gradients."
                )
