"""A run folder belongs to one configuration and explains itself."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from robustforge.config.trust import load_plain
from robustforge.files import write_json, write_text
from robustforge.fingerprint import code_state
from robustforge.types import UserError

# what may differ between two runs of one experiment: places, dashboards, how it is shown
_PRESENTATION = ("paths", "store", "logger", "callbacks", "tags", "name")
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
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    values = {str(key): value for key, value in plain.items() if key not in _PRESENTATION}
    values["dataset"] = {key: value for key, value in values["dataset"].items() if key != "data_dir"}
    values["trainer"] = {key: v for key, v in values["trainer"].items() if key != "enable_progress_bar"}
    return values


def claim(folder: Path, cfg: DictConfig) -> None:
    """Makes ``folder`` this configuration's run folder, or finds that it already is.

    Raises:
        UserError: it cannot be written, or belongs to another configuration.
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
        if theirs != ours:
            differing = ", ".join(_differences(theirs, ours, "")[:5])
            raise UserError(
                f"The run folder {folder} belongs to another configuration (it differs in {differing}): give another "
                "hydra.run.dir, or remove that folder."
            )
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))))
    write_json(folder / "environment.json", environment())


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
