"""What ``doctor.py`` checks; each check answers with findings and changes nothing on the disk."""

from __future__ import annotations

import netrc
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

from robustforge.accel import fast_bf16
from robustforge.data.torchvision_sources import present

LITTLE = 2.0  # GB: below, a run is likely to fill the disk
_WANDB = "api.wandb.ai"


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        state: ``good``; ``note`` for what limits some uses; ``broken`` for what makes runs fail.
        said: how it is.
        advice: what to do, or empty.
    """

    state: Literal["good", "note", "broken"]
    said: str
    advice: str = ""


def packages() -> list[Finding]:
    """Whether the installed versions are those that the package asks for."""
    found = [Finding("good", f"Python {platform.python_version()}, robustforge {version('robustforge')}")]
    for text in requires("robustforge") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        installed = _installed(needed.name)
        if installed is None or not needed.specifier.contains(installed, prereleases=True):
            here = f"{needed.name} {installed} is installed" if installed else f"{needed.name} is missing"
            wanted = f"{needed.name}{needed.specifier}"
            found.append(Finding("broken", f"{here}, {wanted} is needed", f"pip install '{wanted}'"))
    have = {name: _installed(name) for name in ("torch", "torchvision", "lightning", "hydra-core", "torchattacks")}
    found.append(Finding("good", ", ".join(f"{name} {number}" for name, number in have.items() if number)))
    if have["torchattacks"] is None:
        advice = "pip install 'robustforge[torchattacks]'"
        found.append(
            Finding("note", "torchattacks is not installed: attack=torchattacks/<Name> is not offered", advice)
        )
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def devices() -> list[Finding]:
    """Processors, memory, bf16 and GPUs."""
    cpu = torch.backends.cpu.get_cpu_capability()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    size = f", {memory:.0f} GB of memory" if memory else ""
    found = [Finding("good", f"{os.cpu_count()} processors ({cpu}), {torch.get_num_threads()} threads{size}")]
    if fast_bf16(torch.device("cpu")):
        found.append(Finding("good", "bf16 is computed by the processor: attacks and training use it"))
    else:
        found.append(Finding("note", "no bf16 in the processor's hardware: float32 is used, 2 to 5 times slower"))
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        quick = "bf16" if fast_bf16(torch.device("cuda", number)) else "no bf16"
        found.append(Finding("good", f"GPU {number}: {device.name}, {device.total_memory / 2**30:.0f} GB, {quick}"))
    if torch.cuda.device_count():
        return found
    if shutil.which("nvidia-smi"):
        advice = "install the PyTorch build for your CUDA version: https://pytorch.org/get-started"
        return [
            *found,
            Finding("broken", f"an NVIDIA driver is here, but torch {torch.__version__} sees no GPU", advice),
        ]
    return [*found, Finding("note", "no GPU: use trainer=cpu (the default) and device=cpu")]


def data(root: Path) -> list[Finding]:
    """Which data sets are in ``root``."""
    found = [Finding("good", "digits needs no files")]
    there, missing = present(root)
    if there:
        found.append(Finding("good", f"in '{root}': {', '.join(there)}"))
    if missing:
        advice = "dataset.download=true fetches them; or set ROBUSTFORGE_DATA to the folder that has them"
        found.append(Finding("note", f"not in '{root}': {', '.join(missing)}", advice))
    return found


def outputs(folder: Path) -> list[Finding]:
    """Whether runs can be written below ``folder``, and what the store there holds."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return [
            Finding("broken", f"'{place}' cannot be written", "set paths.output_dir to a folder that you may write")
        ]
    free = shutil.disk_usage(place).free / 1e9
    state: Literal["good", "broken"] = "good" if free >= LITTLE else "broken"
    advice = "" if free >= LITTLE else "free some disk space, or set paths.output_dir to another disk"
    found = [Finding(state, f"'{folder}' has {free:.1f} GB free", advice)]
    store = folder / "store"
    if store.is_dir():
        sizes = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
        products = len(list(store.glob("*/manifest.json")))
        cells = len(list((store / "cells").glob("*.parquet")))
        text = f"the store has {products} products and {cells} measured cells, {sum(sizes) / 1e9:.2f} GB"
        found.append(Finding("good", text))
    return found


def weights_and_biases() -> list[Finding]:
    """Whether somebody is logged in."""
    if os.environ.get("WANDB_MODE") == "offline":
        return [Finding("good", "WANDB_MODE=offline: runs are kept on the disk")]
    if os.environ.get("WANDB_API_KEY") or _in_netrc():
        return [Finding("good", "logged in: logger=wandb sends runs there")]
    advice = "wandb login, or logger=wandb logger.offline=true and later wandb sync"
    return [Finding("note", "nobody is logged in: needed for logger=wandb only", advice)]


def _in_netrc() -> bool:
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return path.is_file() and netrc.netrc(path).authenticators(_WANDB) is not None
    except (netrc.NetrcParseError, OSError):
        return False
