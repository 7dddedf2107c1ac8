"""What a product depends on, as plain values: descriptions of objects, hashes of files, weights and source code, keys.

Two products with one key must be the same product. A key is the hash of a description; a description holds values, the
content of files (not their places) and the weights of live networks. The code that made a product is told in two ways:
the source of a method's own folder, of attacks, networks and of the user's modules is part of the key; the rest of the
package is recorded beside the product (see :func:`code_state`), and a difference there is said.

Source is compared without docstrings, comments and formatting.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustforge.files import sha256_of

FORMAT = 3  # raise when the meaning of stored products changes
PACKAGE = Path(__file__).resolve().parent

# the framework: recorded beside a product, no part of its key
_FRAMEWORK = (
    "robustforge.types",
    "robustforge.files",
    "robustforge.manifest",
    "robustforge.npz",
    "robustforge.data",
    "robustforge.defenses.base",
    "robustforge.defenses.stages",
    "robustforge.attacks.core",
    "robustforge.evaluation",
    "robustforge.training",
)


def key_of(description: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a description, as 64 hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def describe(value: Any) -> Any:
    """Turns what configs build into plain JSON values.

    Args:
        value: scalars, containers, dataclasses, partials, named functions and classes; a text that is the path of an
            existing file, which is described by its content; live networks and tensors, described by their weights; or
            an object with a method ``describe()``, such as a defense.

    Raises:
        TypeError: a value has no stable description, such as a lambda or a set.
    """
    return _Describer().value(value)


def sources_of(*values: Any) -> dict[str, str]:
    """Hashes of the source of every module that ``describe`` names, by module; see :func:`source_hash`.

    Args:
        values: as for :func:`describe`.
    """
    describer = _Describer()
    for value in values:
        describer.value(value)
    found = {name: source_hash(name) for name in sorted(describer.modules)}
    return {name: digest for name, digest in found.items() if digest is not None}


class _Describer:
    """One walk through a value, which notes the modules of the functions and classes that it meets."""

    def __init__(self) -> None:
        self.modules: set[str] = set()

    def value(self, value: Any) -> Any:
        """See :func:`describe`."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return {"sha256": sha256_of(Path(value))} if names_file(value) else value
        if isinstance(value, functools.partial):
            keywords = self.value(value.keywords)
            return {"_target_": self.value(value.func), "args": self.value(value.args), **keywords}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: self.value(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return {"_target_": self._name(type(value)), **fields}
        if isinstance(value, Tensor | nn.Module) or _describes_itself(value):
            return self._live(value)
        if isinstance(value, Mapping):
            return {str(key): self.value(item) for key, item in value.items()}
        if isinstance(value, os.PathLike):
            return self.value(os.fspath(value))
        if isinstance(value, Sequence):
            return [self.value(item) for item in value]
        if isinstance(value, type) or (callable(value) and getattr(value, "__qualname__", "<").isidentifier()):
            return self._name(value)
        raise TypeError(f"{value!r} has no stable description; pass a partial, a dataclass or plain values instead.")

    def _live(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return {"tensor": weights_hash({"": value})}
        named = {"_target_": self._name(type(value))}
        if _describes_itself(value):
            return {**named, **self.value(value.describe())}
        return {**named, "layers": str(value), "weights": weights_hash(value.state_dict())}

    def _name(self, function: Any) -> str:
        self.modules.add(function.__module__)
        return f"{function.__module__}.{function.__qualname__}"


def _describes_itself(value: Any) -> bool:
    return hasattr(value, "describe") and not isinstance(value, type)


def names_file(text: str) -> bool:
    """Whether a text names an existing file, or a folder by a path with a separator."""
    if not ("." in text or os.sep in text) or len(text) > 4096 or "\0" in text:
        return False
    try:
        return os.path.isfile(text) or (os.sep in text and os.path.isdir(text))
    except OSError:
        return False


def weights_hash(state: Mapping[str, Any]) -> str:
    """SHA-256 of the tensors of a state dictionary, their names, types and shapes; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            digest.update(f"{name}={value!r}\n".encode())
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        plain = value.detach().cpu().contiguous()
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()


# ---- source code -----------------------------------------------------------------------------------------------------


def method_sources(kind: type, base: type) -> dict[str, str]:
    """Hashes of the source of a class and of the classes between it and ``base``, by module or method folder.

    Args:
        kind: of a defense.
        base: where to stop; what it and its own bases are is the framework's.
    """
    classes = kind.__mro__[: kind.__mro__.index(base)]
    found = {place.__module__: source_hash(place.__module__) for place in classes}
    return {name: digest for name, digest in found.items() if digest is not None}


@functools.cache
def source_hash(module: str) -> str | None:
    """Hash of a module's normalized source, 16 hexadecimal digits, or None where it is no part of a key.

    A module of a method's folder (``robustforge.defenses.<method>``) stands for the whole folder. Installed packages,
    Python's own modules and the framework of this package have none.
    """
    if any(module == name or module.startswith(f"{name}.") for name in _FRAMEWORK):
        return None
    parts = module.split(".")
    if parts[:2] == ["robustforge", "defenses"] and (PACKAGE / "defenses" / parts[2]).is_dir():
        return _hash_files(sorted((PACKAGE / "defenses" / parts[2]).glob("*.py")))
    path = _file_of(module)
    if path is None or (parts[0] != "robustforge" and _installed(path)):
        return None
    return _hash_files([path])


def _file_of(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    name = getattr(loaded, "__file__", None)
    if name is None and loaded is None:
        spec = importlib.util.find_spec(module)
        name = spec.origin if spec is not None else None
    return Path(name) if name and name.endswith(".py") and Path(name).is_file() else None


def _installed(path: Path) -> bool:
    folders = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders if folder)


def _hash_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.stem}\n{normalized_source(path.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()[:16]


def normalized_source(text: str) -> str:
    """Python source as its syntax tree, without docstrings, comments and formatting."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                del node.body[0]
    return ast.dump(tree, annotate_fields=False)


@lru_cache(maxsize=1)
def code_state() -> dict[str, Any]:
    """Which code runs: ``version``, ``source`` (hash of the whole package), ``commit`` and ``modified`` where known.

    ``commit`` is that of the checkout that the package is run from, None for an installed wheel; ``modified`` tells
    whether the checkout has changes that are not committed, in other files than those that commands write there.
    """
    try:
        number: str | None = version("robustforge")
    except PackageNotFoundError:
        number = None
    source = _hash_files(sorted(PACKAGE.rglob("*.py")))
    return {"version": number, "source": source, **_checkout(PACKAGE.parent.parent)}


def _checkout(root: Path) -> dict[str, Any]:
    if not (root / ".git").exists():
        return {"commit": None, "modified": None}

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD") or None
        written = [f":(exclude){path}" for path in ("results", "docs", "*.md")]
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
        return {"commit": commit, "modified": bool(changed)}
    except OSError:  # no git on this machine
        return {"commit": None, "modified": None}
