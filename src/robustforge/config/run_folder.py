"""A run folder belongs to one configuration and explains itself."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from robustforge.config.identity import deciding
from robustforge.config.trust import load_plain
from robustforge.files import plain, write_json, write_text
from robustforge.fingerprint import code_state, key_of
from robustforge.manifest import read_object, set_aside
from robustforge.types import DamagedError, UserError

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
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"The run folder {folder} cannot be written ({error.strerror}): set paths.output_dir or hydra.run.dir to a "
            "folder you may write."
        ) from error
    if differing := differences(folder, cfg, data):
        raise UserError(
            f"The run folder {folder} belongs to another configuration (it differs in {', '.join(differing)}): "
            "give another hydra.run.dir, or remove that folder."
        )
    ours = experiment_values(cfg)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))))
    write_json(folder / "environment.json", {**environment(), "data": data, "run": key_of(plain(ours))})


def differences(folder: Path, cfg: DictConfig, data: str | None = None) -> list[str]:
    """At most five settings in which the run of a folder is another one; none where no run has claimed it.

    Args:
        folder: of the run.
        cfg: a configuration.
        data: fingerprint of its data; None to compare the settings alone.
    """
    recorded = _recorded(folder)
    theirs = _configured(folder / "config.yaml", recorded)
    if theirs is None:
        return []
    differing = _differences(theirs, experiment_values(cfg), "")[:5]
    if not differing and data is not None and recorded.get("data", data) != data:  # earlier versions did not say
        differing = ["the content of its data"]
    return differing


def _recorded(folder: Path) -> dict[str, Any]:
    """What the folder's ``environment.json`` says; nothing where it is not there, or was damaged and set aside."""
    path = folder / "environment.json"
    if not path.exists():
        return {}
    try:
        return read_object(path)
    except DamagedError as error:
        set_aside(path, error)
        return {}


def _configured(path: Path, recorded: dict[str, Any]) -> dict[str, Any] | None:
    """The configuration of the folder's run; None where there is none, or a damaged one, which is set aside."""
    if not path.exists():
        return None
    try:
        theirs = experiment_values(load_plain(path))
    except DamagedError as error:
        set_aside(path, error)
        return None
    if recorded.get("run") in (None, key_of(plain(theirs))):
        return theirs
    set_aside(path, f"'{path}' is not what the run wrote: it is damaged, or was changed by hand.")
    return None


def was_changed(folder: Path) -> bool:
    """Whether the configuration of a run folder is another one than its run wrote, as far as the folder tells."""
    try:
        recorded = read_object(folder / "environment.json")
    except DamagedError:
        return False
    ours = experiment_values(load_plain(folder / "config.yaml"))
    return recorded.get("run") not in (None, key_of(plain(ours)))


def _differences(theirs: Any, ours: Any, prefix: str) -> list[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = sorted(set(theirs) | set(ours))
        return [d for key in keys for d in _differences(theirs.get(key), ours.get(key), f"{prefix}{key}.")]
    return [] if theirs == ours else [prefix.rstrip(".")]


def cpu_name() -> str:
    """What the processor calls itself, or its kind where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def machine(device: torch.device, threads: int | None) -> str:
    """Where numbers were made: the GPU's name, or the processor's and how many threads it computed with."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = threads or torch.get_num_threads()
    return f"{cpu_name()}, {count} thread{'s' * (count > 1)}"


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
        "cpu_name": cpu_name(),
        "cpu_count": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
    }
