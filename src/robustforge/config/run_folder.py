"""A run folder belongs to one configuration and explains itself."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from robustforge.config.identity import deciding
from robustforge.config.trust import load_plain
from robustforge.files import write_json, write_text
from robustforge.fingerprint import code_state
from robustforge.types import UserError

_PACKAGES = (
    "robustforge",
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "torchattacks",
    "numpy",
)


def experiment_values(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain values, without what only says where and how it is shown."""
    values: dict[str, Any] = deciding(OmegaConf.to_container(cfg, resolve=True))
    return values


def claim(folder: Path, cfg: DictConfig, data: str) -> None:
    """Makes ``folder`` the run folder of this configuration and data, or finds that it already is.

    Args:
        folder: of the run.
        cfg: its configuration.
        data: fingerprint of its data, see :class:`robustforge.data.datamodule.ImageData`.

    Raises:
        UserError: it cannot be written, or belongs to another configuration or to other data.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".probe").touch()
        (folder / ".probe").unlink()
    except OSError as error:
        raise UserError(
            f"The run folder {folder} cannot be written ({error.strerror}): set paths.output_dir or hydra.run.dir to a "
            "folder you may write."
        ) from error
    path = folder / "config.yaml"
    if path.exists():
        theirs = experiment_values(load_plain(path))
        ours = experiment_values(cfg)
        differing = _differences(theirs, ours, "")[:5]
        if not differing and _other_data(folder, data):
            differing = ["the content of its data"]
        if differing:
            raise UserError(
                f"The run folder {folder} belongs to another configuration (it differs in {', '.join(differing)}): "
                "give another hydra.run.dir, or remove that folder."
            )
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))))
    write_json(folder / "environment.json", {**environment(), "data": data})


def _other_data(folder: Path, data: str) -> bool:
    """Whether the folder's run saw other data; runs of earlier versions do not say what they saw."""
    path = folder / "environment.json"
    return path.exists() and json.loads(path.read_text(encoding="utf-8")).get("data", data) != data


def _differences(theirs: Any, ours: Any, prefix: str) -> list[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = sorted(set(theirs) | set(ours))
        return [d for key in keys for d in _differences(theirs.get(key), ours.get(key), f"{prefix}{key}.")]
    return [] if theirs == ours else [prefix.rstrip(".")]


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "code": code_state(),
        "python": platform.python_version(),
        "packages": packages,
        "cpu": platform.machine(),
        "cpu_count": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
    }
