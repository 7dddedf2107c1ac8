"""Hydra's messages about mistyped names, with the near miss named."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from robustforge.config.resolvers import TORCHATTACKS
from robustforge.hints import nearest

_GROUP = re.compile(r"Could not find '([^']+)/([^'/]*)'")
_KEY = re.compile(r"(?:Could not override|Could not find|Key|Could not delete from config\.) '([^']+)'")
# what Hydra says in several lines, and what is to be done
_SENTENCES = (
    (r"An item is already at '([^']+)'", "{0} is there already: leave out the + in front of it."),
    (r"Multiple values for ([^\s.]+)\.", "{0} is chosen already: leave out the + in front of it."),
    (
        r"Ambiguous value for argument '([^'=]+)=([^']*)'",
        "{0} has several values: give {0}=[{1}] for a list, or -m for a run each.",
    ),
    (r"Config group override must be ", "A group is given something else than names of its options: write attack=pgd."),
)


def say(message: str) -> int:
    """Prints the sentence for the person at the keyboard, and returns the exit code of a mistake."""
    print(f"Error: {message}", file=sys.stderr)
    return 2


def explain(error: Exception, folder: Path, config_name: str) -> str:
    """One sentence: what Hydra says, without its lists, and where there is one the name that was probably meant.

    Args:
        error: of Hydra or OmegaConf.
        folder: of the configs.
        config_name: of the root config, whose keys and options are the candidates.
    """
    text = str(error).strip()
    lines = [one.strip() for one in text.splitlines() if one.strip() and not re.search(r"full_key|object_type", one)]
    message = " ".join(lines[:2]) if lines else repr(error)
    if isinstance(error, OverrideParseException):
        reason = next(
            (one for one in lines if not one.startswith(("Error parsing override", "See http"))), "no key=value"
        )
        return f"The override '{error.override}' cannot be read: {reason.rstrip('.')}."
    if isinstance(error, MissingMandatoryValue):
        return f"{message}: add {message.rsplit(' ', 1)[-1]}=<value> to the command."
    if isinstance(error, InterpolationResolutionError):
        place = str(getattr(error, "full_key", None) or "hydra")
        what = "A value" if place.startswith("hydra") else place  # Hydra names the run folder after all overrides
        return f"{what} cannot be looked up: {lines[0].rstrip('.')}."
    for pattern, sentence in _SENTENCES:
        found = re.search(pattern, text)
        if found:
            return sentence.format(*found.groups())
    option = _GROUP.search(text)
    if option:
        return _no_option(option[1], option[2], folder)
    key = _KEY.search(text)
    near = None if key is None or "Did you mean" in text else _near_miss(key[1], folder, config_name)
    message = message.split("To append to your config")[0].strip().rstrip(".")
    return f"{message}. Did you mean '{near}'?" if near else message if message.endswith("?") else f"{message}."


def _no_option(place: str, name: str, folder: Path) -> str:
    """The sentence about an option that its group does not have."""
    group, _, below = place.partition("/")
    files = (path.relative_to(folder / place).with_suffix("").as_posix() for path in (folder / place).rglob("*.yaml"))
    known = TORCHATTACKS if below == "torchattacks" else sorted(files)  # which has no files
    prefix = f"{below}/" if below else ""
    near = name.lower() if name.lower() in known else nearest(name, known)
    meant = f" Did you mean '{prefix}{near}'?" if near else ""
    return f"There is no {group} '{prefix}{name}'.{meant} Choose one of {', '.join(prefix + one for one in known)}."


def _near_miss(word: str, folder: Path, config_name: str) -> str | None:
    """The key or group that was probably meant: one that ends like ``word``, or is spelled like it."""
    candidates = sorted(
        {*_options(folder), *_keys(folder, config_name)} - {word}, key=lambda one: (one.count("."), one)
    )
    leaf = word.rsplit(".", 1)[-1]
    same = [one for one in candidates if one.rsplit(".", 1)[-1] == leaf]
    if same:
        return nearest(word, same, cutoff=0.0)
    leaves = {one.rsplit(".", 1)[-1]: one for one in reversed(candidates)}
    close = nearest(word, candidates) or nearest(leaf, leaves, cutoff=0.7)
    return leaves.get(close, close) if close else None


def _options(folder: Path) -> Iterator[str]:
    """``group`` and ``group/option`` names."""
    for path in folder.rglob("*.yaml"):
        relative = path.relative_to(folder).with_suffix("")
        yield relative.as_posix()
        if relative.parent.as_posix() != ".":
            yield relative.parent.as_posix()


@functools.lru_cache(maxsize=4)
def _keys(folder: Path, config_name: str) -> tuple[str, ...]:
    """Dotted keys of the default composition."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
        cfg = compose(config_name, return_hydra_config=False)
    return tuple(_walk(cfg, ""))


def _walk(cfg: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, cfg):
        yield f"{prefix}{key}"
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not OmegaConf.is_interpolation(cfg, key) and not node._is_none():
            yield from _walk(node, f"{prefix}{key}.")
