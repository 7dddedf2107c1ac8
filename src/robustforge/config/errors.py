"""Hydra's messages about mistyped names, with the near miss named."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf


def say(message: str) -> int:
    """Prints the sentence for the person at the keyboard, and returns the exit code of a mistake."""
    print(f"Error: {message}", file=sys.stderr)
    return 2


def explain(error: Exception, folder: Path, config_name: str) -> str:
    """One paragraph: the first line of Hydra's message and, where there is one, the name that was probably meant."""
    text = str(error).strip()
    words = _mistyped(text)
    near = _near_miss(words, folder, config_name) if words else None
    lines = [
        line.strip() for line in text.splitlines() if line.strip() and not re.search(r"full_key|object_type", line)
    ]
    message = " ".join(lines[:2]) if lines else repr(error)
    if isinstance(error, OverrideParseException):
        return f"The override '{error.override}' cannot be read: {lines[0] if lines else 'see the override grammar'}."
    if isinstance(error, MissingMandatoryValue):
        return f"{message}: add {message.rsplit(' ', 1)[-1]}=<value> to the command."
    message = message.split("To append to your config")[0].strip()
    return f"{message} Did you mean '{near}'?" if near else message


def _mistyped(text: str) -> str | None:
    for pattern in (
        r"Could not override '([^']+)'",
        r"Could not find '([^']+)'",
        r"In '[^']+': Could not find '([^']+)'",
        r"Key '([^']+)' is not in struct",
    ):
        found = re.search(pattern, text)
        if found:
            return found.group(1)
    return None


def _near_miss(word: str, folder: Path, config_name: str) -> str | None:
    candidates = set(_options(folder)) | set(_keys(folder, config_name))
    close = difflib.get_close_matches(word, sorted(candidates), n=1, cutoff=0.6)
    if close:
        return close[0]
    leaf = word.rsplit(".", 1)[-1]
    leaves = {candidate.rsplit(".", 1)[-1]: candidate for candidate in sorted(candidates)}
    close = difflib.get_close_matches(leaf, sorted(leaves), n=1, cutoff=0.7)
    return leaves[close[0]] if close else None


def _options(folder: Path) -> Iterator[str]:
    """``group`` and ``group/option`` names."""
    for path in folder.rglob("*.yaml"):
        relative = path.relative_to(folder).with_suffix("")
        yield relative.as_posix()
        if relative.parent.as_posix() != ".":
            yield relative.parent.as_posix()


def _keys(folder: Path, config_name: str) -> Iterator[str]:
    """Dotted keys of the default composition."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
        cfg = compose(config_name, return_hydra_config=False)
    yield from _walk(cfg, "")


def _walk(cfg: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, cfg):
        yield f"{prefix}{key}"
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not OmegaConf.is_interpolation(cfg, key) and not node._is_none():
            yield from _walk(node, f"{prefix}{key}.")
