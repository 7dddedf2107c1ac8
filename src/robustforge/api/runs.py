"""``rf.load_run``: a run that was trained here, or by somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from robustforge.api.untouched import device_of
from robustforge.config.restore import load_restored
from robustforge.defenses.base import Defense


def load_run(folder: str | Path, device: torch.device | str = "cpu", trust: str | Sequence[str] = ()) -> Defense:
    """The trained defense of a run folder.

    Nothing that the folder says is believed: its configuration may build what this package's own configurations build,
    optimizers of torch, and what is defined in modules that you trust; an interpolation in it is refused. Weights are
    safetensors.

    Args:
        folder: that ``train.py`` wrote, whose store must be at its place or have been moved with it; or one that
            ``export.py`` wrote, which needs neither store nor data.
        device: where the defense goes.
        trust: names of modules with networks of your own, such as ``("mynets", "torchvision")``.

    Returns:
        The defense, in eval mode, without parameter gradients: ``defense(x).logits``.

    Raises:
        UserError: it is no run folder, not to be trusted, or its store or data is missing; or an exported file is not
            the one that was written.
    """
    _, defense, _ = load_restored(Path(folder), trust, device_of(device))
    return defense
