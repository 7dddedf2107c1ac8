"""What a run is: the part of its configuration that decides its numbers, not where and how they are shown.

Two commands that differ elsewhere are one run: they share the run folder, its name in dashboards and its products.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from robustforge.files import sha256_of

# keys, each with everything below it, that only say where things lie and how they are shown
SHOWN = (
    "trust",
    "paths",
    "store",
    "logger",
    "callbacks.progress",
    "callbacks.learning_rate",
    "tags",
    "name",
    "evaluate",
    "report",
    "dataset.path",
    "dataset.data_dir",
    "dataset.download",
    "dataset.sha256",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)
_KEPT = re.compile(r".*[/\\](given-[0-9a-f]{16})[/\\][^/\\]+")
_SHOWN_OPTIONS = ("callbacks=default", "callbacks=none")  # which differ in what is shown


def is_shown(key: str) -> bool:
    """Whether a dotted key of the configuration is no part of what the run is."""
    return any(key == shown or key.startswith(f"{shown}.") for shown in SHOWN)


def naming_overrides(overrides: Sequence[str], unnamed: Sequence[str] = ()) -> str:
    """The overrides that say what a run is, sorted and joined by commas.

    Args:
        overrides: of the command line, such as ``seed=1``, ``+a.b=2`` or ``~a.b``.
        unnamed: further keys that are left out: what follows from others.

    Returns:
        Overrides of files and folders hold a name in place of the path, because where data lies is no part of a run:
        see :func:`content_name`.
    """
    named = []
    for override in map(str, overrides):
        key, equal, value = override.partition("=")
        plain = key.lstrip("+~").split("@", 1)[0]
        text = value.strip("'\"")
        if plain == "dataset.path" and text not in ("", "null"):
            named.append(f"{key}={content_name(Path(text).expanduser())}")
        elif not is_shown(plain) and plain not in unnamed and f"{plain}={text}" not in _SHOWN_OPTIONS:
            path = Path(text).expanduser()
            has_content = ("." in text or "/" in text) and (path.is_file() or (path / "config.yaml").is_file())
            named.append(f"{key}={content_name(path)}" if has_content else f"{key}{equal}{value}")
    return ",".join(sorted(named))


def content_name(path: Path) -> str:
    """A short name of a file that depends on its own name and its content alone, and the name of a folder.

    A folder's content is not looked at: it may be millions of images. A run folder's is its configuration.
    """
    if (path / "config.yaml").is_file():
        return f"{path.name}-{sha256_of(path / 'config.yaml')[:8]}"
    if not path.is_file():
        return path.name
    state = path.stat()
    return f"{path.stem}-{_content(path, state.st_mtime_ns, state.st_size)}"


@lru_cache(maxsize=16)
def _content(path: Path, changed: int, size: int) -> str:
    """Eight hexadecimal digits of the content; an archive keeps checksums of its members, which are quick to read."""
    try:
        with zipfile.ZipFile(path) as archive:
            text = "\n".join(f"{member.filename} {member.CRC} {member.file_size}" for member in archive.infolist())
        return hashlib.sha256(text.encode()).hexdigest()[:8]
    except (zipfile.BadZipFile, OSError):
        return sha256_of(path)[:8]


def deciding(values: Any, prefix: str = "") -> Any:
    """Plain values of a configuration without the keys that :func:`is_shown` knows.

    What :func:`robustforge.config.given.keep_given` has put into the store counts by its name there, which goes by its
    content: the store may be moved.
    """
    if not isinstance(values, dict):
        in_store = _KEPT.fullmatch(values) if isinstance(values, str) else None
        return in_store[1] if in_store else values
    kept = {key: item for key, item in values.items() if not is_shown(f"{prefix}{key}")}
    return {str(key): deciding(item, f"{prefix}{key}.") for key, item in kept.items()}
