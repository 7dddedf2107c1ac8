"""Crafting an adversarial set: sharded over processes, resumable by batch, in the order of the training split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from robustforge.data.datamodule import ImageData
from robustforge.defenses.stages import CraftStage
from robustforge.training import distributed


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """A writable memory map, made by rank 0 when it is not there yet."""
    if distributed.rank() == 0 and not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()
    distributed.barrier()
    return np.lib.format.open_memmap(path, mode="r+")


def craft(stage: CraftStage, data: ImageData, folder: Path, seed: int, device: torch.device, quiet: bool) -> None:
    """Attacks every training image once and writes ``<folder>/images.npy``.

    Args:
        stage: surface, attack and budget.
        data: its training split is attacked, unaugmented.
        folder: holds ``images.npy`` (N, C, H, W) float32 and ``done.npy`` (N,) bool, which marks what is finished.
        seed: of the attack's draws.
        device: where the attack runs.
        quiet: no progress bar.
    """
    surface = stage.surface()
    surface.modules.to(device)
    count = len(data.train.labels)
    images = _map(folder / "images.npy", "<f4", (count, *data.shape))
    done = _map(folder / "done.npy", "|b1", (count,))
    batches = data.batches("train", device=device)
    total = -(-count // (data.eval_batch_size * distributed.world_size()))
    hidden = quiet or distributed.rank() != 0
    for batch in track(batches, description=f"crafting {stage.name}", total=total, disable=hidden):
        rows = batch.index.cpu().numpy()
        if done[rows].all():
            continue
        result = stage.attack(surface, batch.x, batch.y, stage.threat, index=batch.index, seed=seed)
        images[rows] = result.x_adv.cpu().numpy()
        images.flush()
        done[rows] = True
        done.flush()
    distributed.barrier()
