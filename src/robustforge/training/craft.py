"""Crafting an adversarial set: sharded over processes, resumable by batch, in the order of the training split."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from robustforge.data.adversarial_set import begin_images, marks
from robustforge.data.datamodule import ImageData
from robustforge.data.images import check_adversarial
from robustforge.data.resident import Split
from robustforge.defenses.stages import CraftStage
from robustforge.interruption import check
from robustforge.training import distributed

log = logging.getLogger(__name__)


def _maps(folder: Path, shape: tuple[int, ...]) -> tuple[np.memmap, np.memmap]:
    """Writable memory maps of the images and of what is done, made by rank 0 when they are not there yet."""
    if distributed.rank() == 0:
        begin_images(folder, shape)
    distributed.barrier()
    images, done = (np.lib.format.open_memmap(folder / name, mode="r+") for name in ("images.npy", "done.npy"))
    return images, done


def craft(
    stage: CraftStage,
    data: ImageData,
    folder: Path,
    seed: int,
    device: torch.device,
    quiet: bool,
    limit: int | None = None,
    split: str = "train",
    source: np.ndarray | None = None,
    batch_size: int | None = None,
) -> None:
    """Attacks every image of a split once and writes ``<folder>/images.npy``.

    Args:
        stage: surface, attack and budget.
        data: whose images are attacked, unaugmented.
        folder: holds ``images.npy`` (N, C, H, W) float32 and ``done.npy`` (N,), which marks what is finished.
        seed: of the attack's draws.
        device: where the attack runs.
        quiet: no progress bar.
        limit: attack this many batches only, to try things out; the other images stay clean.
        split: ``train``, ``calibration`` or ``test``.
        source: (N, C, H, W) images in [0, 1] that are attacked in place of the split's own, or None.
        batch_size: images attacked together; None for the data's ``eval_batch_size``. Processes take whole batches in
            turn, so that the set does not depend on their number.
    """
    surface = stage.surface()
    surface.modules.to(device)
    count = len(getattr(data, split).labels)
    images, done = _maps(folder, (count, *data.shape))
    size, hidden = batch_size or data.eval_batch_size, quiet or distributed.rank() != 0
    batches = enumerate(islice(data.batches(split, size, device=device, shard=False), limit))
    total = limit or -(-count // size)
    for number, batch in track(batches, description=f"crafting {stage.name}", total=total, disable=hidden):
        check()
        rows = batch.index.cpu().numpy()
        if number % distributed.world_size() != distributed.rank() or np.all(done[rows]):
            continue
        x = batch.x if source is None else torch.as_tensor(np.array(source[rows]), device=device)
        result = stage.attack(surface, x, batch.y, stage.threat, index=batch.index, seed=seed)
        attacked = result.x_adv.float().cpu().numpy()
        check_adversarial(attacked, f"What the attack {stage.attack.name} returned")
        images[rows] = attacked
        images.flush()
        done[rows] = marks(attacked)
        done.flush()
    if limit and distributed.rank() == 0:
        log.warning("%s: the limits of the trainer apply, so that only %d batches were attacked", stage.name, limit)
        _fill_clean(images, done, getattr(data, split), data.eval_batch_size)
    distributed.barrier()


def _fill_clean(images: np.ndarray, done: np.ndarray, clean: Split, batch_size: int) -> None:
    """Clean images where nothing was crafted, so that a limited run can go on."""
    for start in range(0, len(done), batch_size):
        rows = np.arange(start, min(start + batch_size, len(done)))
        rows = rows[np.asarray(done[rows]) == 0]
        images[rows] = clean.pixels(torch.as_tensor(rows)).numpy()
