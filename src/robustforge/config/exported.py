"""A trained run as a folder that needs nothing else: one file of weights, a portable configuration, hashes of both.

An exported folder is read like any run folder, without a store and without data; nothing in it is believed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustforge.config.instantiate import build
from robustforge.defenses.base import Defense
from robustforge.files import atomic_write, sha256_of, write_text
from robustforge.types import DefenseOutput, UserError

log = logging.getLogger(__name__)

CONFIG, MODEL, SUMS, CARD = "config.yaml", "model.safetensors", "SHA256SUMS", "README.md"
HASHED = (CONFIG, MODEL, "environment.json", "result.json")  # the card is the reader's to edit: its license is missing
FILES = (*HASHED, SUMS, CARD)
_PLACES = {"data_dir": "", "output_dir": "outputs", "store_dir": "outputs/store"}


def is_exported(folder: Path) -> bool:
    """Whether a run folder holds the weights itself."""
    return (folder / MODEL).is_file()


def write_exported(folder: Path, defense: Defense, cfg: DictConfig) -> None:
    """Writes weights and configuration, and reads them back to see that they answer the same.

    Args:
        folder: that exists; two files are written.
        defense: trained, on the CPU.
        cfg: its run's configuration, resolved.

    Raises:
        UserError: the defense cannot be built again without files or downloads of this machine.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in defense.state_dict().items()}
    with atomic_write(folder / MODEL) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    shape = cfg.dataset.shape
    wanted = _answer(defense, shape)
    problem: UserError | None = None
    for candidate in _portable(cfg):
        try:
            again = _loaded(candidate, folder)
        except UserError as error:
            problem = problem or error
            continue
        if _same(_answer(again, shape), wanted):
            write_text(folder / CONFIG, OmegaConf.to_yaml(candidate))
            return
    reason = f" ({problem})" if problem else ""
    raise UserError(
        f"The run's {type(defense).__name__} does not come back from its weights and arguments alone{reason}: an "
        "argument of defense names a file or a download that decides more than weights."
    )


def write_sums(folder: Path) -> None:
    """Writes the hashes of all files that are not the reader's to edit, as ``sha256sum --check`` reads them."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in HASHED if (folder / name).is_file()]
    write_text(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> None:
    """Compares the files of an exported folder with their hashes.

    Raises:
        UserError: there are no hashes, or a file is missing, or not the one that was written.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{folder / SUMS}' cannot be read ({error}): export the run again.") from error
    told = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    wanted = {CONFIG, MODEL} | (set(told) & set(HASHED))
    for name in sorted(wanted):
        path = folder / name
        if not path.is_file() or told.get(name) != sha256_of(path):
            raise UserError(f"'{path}' is not the file that was exported (its SHA-256 differs): export the run again.")


def load_exported(defense: Defense, folder: Path, data: str | None = None) -> None:
    """Loads the weights of an exported folder, whose hashes were checked, into its untrained defense.

    Args:
        defense: as its configuration builds it.
        folder: the exported one.
        data: fingerprint of the data that it is about to be evaluated on; a warning says that it was trained with other
            data.

    Raises:
        UserError: they are damaged, or another defense's.
    """
    path = folder / MODEL
    try:
        defense.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"'{path}' does not hold the weights of this {type(defense).__name__} ({reason}).") from error
    defense.leave()
    if data is not None and _trained_with(folder) not in (None, data):
        log.warning("The data is not that of the exported run: calibration and test images are other ones")


def _trained_with(folder: Path) -> Any:
    """Fingerprint of the data of the run, where it is told."""
    try:
        told = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told.get("data") if isinstance(told, dict) else None


def exported_defense(cfg: DictConfig, folder: Path, device: torch.device) -> Defense:
    """The defense of an exported folder, frozen, on ``device``; neither store nor data is needed.

    Args:
        cfg: of the folder, trusted.
        folder: it.
        device: where the defense goes.

    Raises:
        UserError: as :func:`check_sums` and :func:`load_exported`.
    """
    check_sums(folder)
    return _loaded(cfg, folder).to(device)


def _loaded(cfg: DictConfig, folder: Path) -> Defense:
    defense: Defense = build(cfg.defense)
    load_exported(defense, folder)
    return defense


def _portable(cfg: DictConfig) -> Iterator[DictConfig]:
    """Configurations without places of this machine; first those whose networks fetch no weights, which are here."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    values["paths"] = dict(_PLACES)
    values["dataset"]["data_dir"] = ""
    values["logger"] = {"kind": "csv"}
    values["defense"].pop("baseline", None)  # a row of that run's table, and no part of the defense
    plain = _without_places(values)
    for fetched in (None, False):
        parts = {key: _without_downloads(plain[key], fetched) for key in ("defense", "model") if key in plain}
        yield OmegaConf.create({**plain, **parts})
    yield OmegaConf.create(plain)


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    return None if isinstance(value, str) and os.path.isabs(value) else value


def _without_downloads(value: Any, fetched: bool | None) -> Any:
    """With ``fetched`` where a network would fetch its weights: the words of torchvision, timm and this package."""
    if isinstance(value, list):
        return [_without_downloads(item, fetched) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _without_downloads(item, fetched) for key, item in value.items()}
    if value.get("pretrained") is True:
        made["pretrained"] = fetched
    if isinstance(value.get("weights"), str):
        made["weights"] = None
    return made


@torch.no_grad()
def _answer(defense: Defense, shape: Any) -> DefenseOutput:
    """What a defense answers to two images, with the same draws every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output: DefenseOutput = defense(torch.rand(2, *shape))
    return output


def _same(one: DefenseOutput, other: DefenseOutput) -> bool:
    pairs = ((one.logits, other.logits), (one.risk, other.risk))
    return all(_equal(a, b) for a, b in pairs)


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
