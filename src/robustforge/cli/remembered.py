"""Digests of runs, remembered on disk: composing the hundreds of runs of all tables takes a minute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from robustforge.config.dependence import digest_today
from robustforge.config.locate import config_folder
from robustforge.files import write_json
from robustforge.manifest import read_object
from robustforge.types import DamagedError

Digest = Callable[[Sequence[str]], str]


@contextmanager
def remembered(path: Path) -> Iterator[Digest]:
    """Gives :func:`robustforge.config.dependence.digest_today`, which asks a file first.

    Args:
        path: of the file. It counts while the package's source and the configuration are what they were.
    """
    code = _code()
    known = _read(path, code)
    before = len(known)

    def digest(overrides: Sequence[str]) -> str:
        name = json.dumps(list(overrides))
        if name not in known:
            known[name] = digest_today(overrides)
        return known[name]

    try:
        yield digest
    finally:
        if len(known) > before:
            write_json(path, {"code": code, "digests": known})


def _read(path: Path, code: str) -> dict[str, str]:
    """What the file remembers of this code; nothing where it is missing or damaged."""
    try:
        kept = read_object(path)
    except DamagedError:
        return {}
    digests = kept.get("digests")
    return dict(digests) if kept.get("code") == code and isinstance(digests, dict) else {}


def _code() -> str:
    """One hash of the package's source and of the configuration; tables apart, whose settings are the question."""
    package, configs = Path(__file__).parents[1], config_folder()
    files = [*package.rglob("*.py"), *(path for path in configs.rglob("*.yaml") if "reproduce" not in path.parts)]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
