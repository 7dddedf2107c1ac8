"""Our side of the training benchmarks: Lightning's loop and nothing that is shown or kept."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import torch

from robustforge.accel import fast_bf16
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense


def fit_quietly(
    defense: Defense, stage: str, epochs: int, data: ImageData, callback: pl.Callback, folder: Path
) -> None:
    """Trains one stage on the CPU, in bf16 where the hardware has it, without validation, logs or checkpoints.

    Args:
        defense: whose stage it is; trained in place.
        stage: its name.
        epochs: at most.
        data: that it is trained on.
        callback: which measures.
        folder: for what Lightning writes.
    """
    defense.enter(next(one for one in defense.stages() if one.name == stage))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        precision="bf16-mixed" if fast_bf16(torch.device("cpu")) else "32-true",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        inference_mode=False,
        default_root_dir=str(folder),
    )
    trainer.fit(defense, datamodule=data)
    defense.leave()
