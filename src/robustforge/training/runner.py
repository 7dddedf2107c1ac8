"""Runs the stages of a defense in order, each one from the store when it is there, else made and stored."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import CalibrateStage, CraftStage, FitStage, Stage, derive_seed, seed_everywhere
from robustforge.fingerprint import key_of
from robustforge.manifest import set_aside
from robustforge.training import distributed
from robustforge.training.craft import craft
from robustforge.training.curves import curve_logger, keep_curves
from robustforge.training.final_weights import FinalWeights
from robustforge.training.fitting import check_batches, check_trained, lightnings_refusals
from robustforge.training.keys import craft_batch, craft_limit, describe_stage
from robustforge.training.locks import exclusive
from robustforge.training.resume import ResumePoint
from robustforge.training.store import Artifact, ArtifactStore, save_modules
from robustforge.types import DamagedError, UserError

log = logging.getLogger(__name__)
TrainerFactory = Callable[..., pl.Trainer]
OTHER_CODE = ("warn", "remake")


@dataclass(frozen=True)
class StageReport:
    """What happened to one stage.

    Attributes:
        name: of the stage.
        key: of its product in the store.
        reused: whether the store already had it.
        seconds: spent on it in this run.
        other_code: whether the package's source was another one when it was made.
        made_in: seconds that making it took, by whichever run did; None where that is not known.
    """

    name: str
    key: str
    reused: bool
    seconds: float
    other_code: bool = False
    made_in: float | None = None


@dataclass
class StageRunner:
    """Makes a defense's stages.

    Attributes:
        data: the data module, set up.
        store: where products lie.
        trainer: (stage name, epochs, extra callbacks, gradient clip) -> Trainer.
        limits: the trainer settings that change what a stage produces (limited batches, fast_dev_run, precision,
            number of processes and threads ...); part of the key of every fit.
        device: where crafting runs.
        quiet: no progress bars.
        only_reuse: refuse to make what the store lacks (evaluation must not train).
        made_by_other_code: ``warn`` uses products that another version of the package made, ``remake`` makes them
            again.
        reused: told the name and the folder of every product that is taken from the store.
        resume_every: least seconds between two resume points of a fit; 0 for one after every epoch.

    Raises:
        UserError: another word for that.
    """

    data: ImageData
    store: ArtifactStore
    trainer: TrainerFactory
    limits: dict[str, Any]
    device: torch.device
    quiet: bool = False
    only_reuse: bool = False
    made_by_other_code: str = "warn"
    reused: Callable[[str, Path], None] | None = None
    resume_every: float = 5.0

    def __post_init__(self) -> None:
        if self.made_by_other_code not in OTHER_CODE:
            raise UserError(
                f"store.made_by_other_code is '{self.made_by_other_code}': choose one of {', '.join(OTHER_CODE)}."
            )

    def run(self, defense: Defense) -> list[StageReport]:
        """Runs every stage; afterwards the defense holds all products, frozen and in eval mode.

        The stages of the defenses that it is built on come first.

        Raises:
            UserError: the store lacks a stage that may not be made, or batches are too small for its networks.
            DivergedError: a loss or weight became NaN or infinite; nothing of that stage is stored.
        """
        artifacts: dict[str, Artifact] = {}
        stages = [(owner, stage) for owner in (*defense.built_on(), defense) for stage in owner.stages()]
        if not self.only_reuse:
            check_batches(stages, self.data)
            log.info("stages: %s", ", ".join(stage.name for _, stage in stages) or "none, nothing is trained")
        reports = []
        for number, (owner, stage) in enumerate(stages, 1):
            report = self._run_stage(f"stage {number}/{len(stages)} {stage.name}", stage, owner, artifacts)
            reports.append(report)
        defense.leave()
        return reports

    def _run_stage(self, label: str, stage: Stage, owner: Defense, artifacts: dict[str, Artifact]) -> StageReport:
        started = time.perf_counter()
        keys = {name: artifact.key for name, artifact in artifacts.items()}
        description = describe_stage(stage, owner, self.data, keys, self.limits)
        key = key_of(description)
        main = distributed.rank() == 0
        with exclusive(self.store.lock_path(stage.name, key), label):
            found, problem = self._stored(stage, owner, key) if main else (None, "")
            reused = distributed.agree(found is not None and self._reusable(label, found))
            if not reused and self.only_reuse:
                raise UserError(
                    f"The store {self.store.root} lacks this run's stage {stage.name}{problem}: give the same command "
                    "to train.py again, which makes it."
                )
            if not reused:
                log.info("%s: making %s", label, key[:16])
                self._make(stage, owner, key, artifacts)
                distributed.barrier()
                if main:
                    kept = _kept(stage, self.store.workspace(stage.name, key))
                    self.store.commit(stage.name, key, description, kept, time.perf_counter() - started)
                distributed.barrier()
        artifact = self.store.find(stage.name, key)
        assert artifact is not None
        if not isinstance(stage, CraftStage):
            artifact.load_modules(owner, _modules(stage))
        artifacts[stage.name] = artifact
        if reused and self.reused is not None:
            self.reused(stage.name, artifact.folder)
        seconds = time.perf_counter() - started
        log.info("%s: %s %s in %.1f s", label, "reused" if reused else "made", key[:16], seconds)
        return StageReport(stage.name, key, reused, seconds, artifact.by_other_code, artifact.seconds)

    def _stored(self, stage: Stage, owner: Defense, key: str) -> tuple[Artifact | None, str]:
        """The product where the store has it, else what is wrong with it; a damaged one makes way for a new one."""
        try:
            found = self.store.find(stage.name, key)
            if found is None:
                return None, ""
            if isinstance(stage, CraftStage):
                found.check_images((len(self.data.train.labels), *self.data.shape))
            else:
                found.check_modules(owner, _modules(stage))
        except DamagedError as error:
            if not self.only_reuse:
                set_aside(self.store.folder(stage.name, key), error)
            return None, f" ({str(error).rstrip('.')})"
        return found, ""

    def _reusable(self, label: str, found: Artifact) -> bool:
        """Whether a product was made by code that may be trusted to make the same."""
        if not found.by_other_code:
            return True
        made = found.code.get("commit") or found.code.get("version")
        if self.made_by_other_code == "remake" and not self.only_reuse:
            log.info("%s: in the store, but made by other code (%s); it is made again", label, made)
            return False
        log.warning(
            "%s: made by other code (%s); store.made_by_other_code=remake makes it again with this one", label, made
        )
        return True

    def _make(self, stage: Stage, defense: Defense, key: str, artifacts: dict[str, Artifact]) -> None:
        workspace = self.store.workspace(stage.name, key)
        seed_everywhere(derive_seed(defense.seed, stage.name))
        if isinstance(stage, CraftStage):
            seed = derive_seed(defense.seed, stage.name)
            source = _images(artifacts, stage.source)
            size, limit = craft_batch(self.limits, self.data), craft_limit(self.limits)
            craft(stage, self.data, workspace, seed, self.device, self.quiet, limit, source=source, batch_size=size)
            return
        if isinstance(stage, CalibrateStage):
            self._calibrate(stage, defense, workspace)
            return
        if stage.prepare is not None:
            stage.prepare()
        self.data.adversarial, self.data.erasing = _images(artifacts, stage.adversarial_set), stage.erasing
        self.data.replays = stage.replays
        resume = ResumePoint(workspace, stage, self.resume_every)
        defense.enter(stage)
        final = [FinalWeights(stage.name, stage.trains, stage.best, stage.average)]
        extra = [*(final if stage.best or stage.average else []), resume]
        with lightnings_refusals():
            trainer = self.trainer(stage.name, stage.training.epochs, extra, stage.training.gradient_clip)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.loggers = [*trainer.loggers, curve_logger(workspace)]
        checkpoint = resume.find()
        if checkpoint:
            log.info("continuing %s from its last resume point", stage.name)
        trainer.fit(defense, datamodule=self.data, ckpt_path=checkpoint, weights_only=True)
        self.data.adversarial, self.data.erasing, self.data.replays = None, True, 1
        if trainer.interrupted:
            raise KeyboardInterrupt
        check_trained(trainer.global_step, stage.name)
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


def _kept(stage: Stage, workspace: Path) -> tuple[str, ...]:
    """The files that make up a stage's product."""
    return ("images.npy",) if isinstance(stage, CraftStage) else ("weights.safetensors", *keep_curves(workspace))


def _images(artifacts: dict[str, Artifact], name: str | None) -> np.ndarray | None:
    return None if name is None else artifacts[name].load_images()
