"""Runs the stages of a defense in order, each one from the store when it is there, else made and stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from filelock import FileLock

from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import (
    CalibrateStage,
    CraftStage,
    FitStage,
    Stage,
    derive_seed,
    describe,
    seed_everywhere,
)
from robustforge.training import distributed
from robustforge.training.craft import craft
from robustforge.training.final_weights import FinalWeights
from robustforge.training.resume import ResumePoint
from robustforge.training.store import Artifact, ArtifactStore, key_of, save_modules
from robustforge.types import UserError

log = logging.getLogger(__name__)
TrainerFactory = Callable[..., pl.Trainer]


@dataclass(frozen=True)
class StageReport:
    """What happened to one stage.

    Attributes:
        name: of the stage.
        key: of its product in the store.
        reused: whether the store already had it.
        seconds: spent on it in this run.
    """

    name: str
    key: str
    reused: bool
    seconds: float


@dataclass
class StageRunner:
    """Makes a defense's stages.

    Attributes:
        data: the data module, set up.
        store: where products lie.
        trainer: (stage name, epochs, extra callbacks, gradient clip) -> Trainer.
        limits: the trainer settings that change what a stage produces (limited batches, fast_dev_run, precision,
            number of processes); part of every key.
        device: where crafting runs.
        quiet: no progress bars.
        only_reuse: refuse to make what the store lacks (evaluation must not train).
    """

    data: ImageData
    store: ArtifactStore
    trainer: TrainerFactory
    limits: dict[str, Any]
    device: torch.device
    quiet: bool = False
    only_reuse: bool = False

    def run(self, defense: Defense) -> list[StageReport]:
        """Runs every stage; afterwards the defense holds all products, frozen and in eval mode.

        The stages of the defenses that it is built on come first.
        """
        artifacts: dict[str, Artifact] = {}
        reports = []
        stages = [(owner, stage) for owner in (*defense.built_on(), defense) for stage in owner.stages()]
        for number, (owner, stage) in enumerate(stages, 1):
            started = time.perf_counter()
            description = self._describe(stage, owner.seed, artifacts)
            key = key_of(description)
            label = f"stage {number}/{len(stages)} {stage.name}"
            held = distributed.rank() == 0
            with FileLock(self.store.lock_path(stage.name, key)) if held else nullcontext():
                artifact = self.store.find(stage.name, key)
                reused = distributed.agree(artifact is not None)
                if not reused and self.only_reuse:
                    raise UserError(
                        f"The store {self.store.root} lacks this run's stage {stage.name}: give the same command to "
                        "train.py again, which makes it."
                    )
                if not reused:
                    log.info("%s: making %s", label, key[:16])
                    self._make(stage, owner, key, artifacts)
                    distributed.barrier()
                    if held:
                        keep = ("images.npy",) if isinstance(stage, CraftStage) else ("weights.safetensors",)
                        self.store.commit(stage.name, key, description, keep)
                    distributed.barrier()
            artifact = self.store.find(stage.name, key)
            assert artifact is not None
            if not isinstance(stage, CraftStage):
                artifact.load_modules(owner, _modules(stage))
            artifacts[stage.name] = artifact
            seconds = time.perf_counter() - started
            log.info("%s: %s %s in %.1f s", label, "reused" if reused else "made", key[:16], seconds)
            reports.append(StageReport(stage.name, key, reused, seconds))
        defense.leave()
        return reports

    @property
    def craft_limit(self) -> int | None:
        """Batches that a crafting pass is limited to, when the trainer is limited to a number of batches."""
        if self.limits.get("fast_dev_run"):
            return 1
        batches = self.limits.get("limit_train_batches")
        return batches if isinstance(batches, int) and not isinstance(batches, bool) else None

    def _describe(self, stage: Stage, seed: int, artifacts: dict[str, Artifact]) -> dict[str, Any]:
        """All that the product depends on, in plain values."""
        description: dict[str, Any] = {
            "stage": stage.name,
            "seed": seed,
            "data": self.data.fingerprint,
            "settings": describe(stage.settings),
            "uses": {name: artifacts[name].key for name in stage.uses},
        }
        if isinstance(stage, CraftStage):
            limited = {"limit": self.craft_limit} if self.craft_limit else {}
            return {**description, "attack": describe(stage.attack), "threat": describe(stage.threat), **limited}
        if isinstance(stage, CalibrateStage):
            return description if stage.split == "calibration" else {**description, "split": stage.split}
        batches: dict[str, Any] = {"batch_size": self.data.batch_size, "augment": describe(self.data.augment)}
        if self.data.seed != seed:  # the order of the batches has the run's seed unless told otherwise
            batches["seed"] = self.data.seed
        adversarial = artifacts[stage.adversarial_set].key if stage.adversarial_set else None
        final = {"best": stage.best, "average": stage.average, "rates": dict(stage.rates)}
        return {
            **description,
            "training": describe(stage.training),
            "batches": batches,
            "limits": self.limits,
            "adversarial": adversarial,
            **{name: value for name, value in final.items() if value},
        }

    def _make(self, stage: Stage, defense: Defense, key: str, artifacts: dict[str, Artifact]) -> None:
        workspace = self.store.workspace(stage.name, key)
        seed_everywhere(derive_seed(defense.seed, stage.name))
        if isinstance(stage, CraftStage):
            seed = derive_seed(defense.seed, stage.name)
            source = _images(artifacts, stage.source)
            craft(stage, self.data, workspace, seed, self.device, self.quiet, self.craft_limit, source=source)
            return
        if isinstance(stage, CalibrateStage):
            self._calibrate(stage, defense, workspace)
            return
        if stage.prepare is not None:
            stage.prepare()
        self.data.adversarial = _images(artifacts, stage.adversarial_set)
        resume = ResumePoint(workspace)
        defense.enter(stage)
        final = [FinalWeights(stage.name, stage.trains, stage.best, stage.average)]
        extra = [*(final if stage.best or stage.average else []), resume]
        trainer = self.trainer(stage.name, stage.training.epochs, extra, stage.training.gradient_clip)
        if resume.found:
            log.info("continuing %s from its last finished epoch", stage.name)
        trainer.fit(defense, datamodule=self.data, ckpt_path=resume.found)
        self.data.adversarial = None
        if trainer.interrupted:
            raise KeyboardInterrupt
        defense.leave()
        if distributed.rank() == 0:
            save_modules(workspace / "weights.safetensors", defense, stage.trains)

    def _calibrate(self, stage: CalibrateStage, defense: Defense, workspace: Path) -> None:
        """One rank sees the whole split, so that the product does not depend on their number."""
        if distributed.rank() != 0:
            return
        defense.to(self.device)
        defense.leave()
        stage.fit(self.data.batches(stage.split, device=self.device, shard=False))
        save_modules(workspace / "weights.safetensors", defense, stage.fits)


def _modules(stage: FitStage | CalibrateStage) -> tuple[str, ...]:
    return stage.trains if isinstance(stage, FitStage) else stage.fits


def _images(artifacts: dict[str, Artifact], name: str | None) -> np.ndarray | None:
    return None if name is None else artifacts[name].load_images()
