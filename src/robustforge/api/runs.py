"""``rf.load_run``: a run that was trained here, or by somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from robustforge.api.untouched import device_of
from robustforge.config.restore import restored
from robustforge.config.trust import load_trusted
from robustforge.defenses.base import Defense


def load_run(folder: str | Path, device: torch.device | str = "cpu", trust: str | Sequence[str] = ()) -> Defense:
    """The trained defense of a run folder.

    Nothing that the folder says is believed: its configuration may build what this package's own configurations build,
    optimizers of torch, and what is defined in modules that you trust; an interpolation in it is refused. Weights are
    safetensors.

    Args:
        folder: that ``train.py`` wrote; its store and its data must be at their places.
        device: where the defense goes.
        trust: names of modules with networks of your own, such as ``("mynets", "torchvision")``.

    Returns:
        The defense, in eval mode, without parameter gradients: ``defense(x).logits``.

    Raises:
        UserError: it is no run folder, not to be trusted, or its store or data is missing.
    """
    cfg = load_trusted(Path(folder), trust)
    defense, _ = restored(cfg, device_of(device))
    return defense
