"""``scripts/make_adversarial_set.py`` / ``robustforge-adversarial-set``: attack a split once and keep the images."""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from robustforge.cli.entry import job, run
from robustforge.cli.evaluate import load_run, merge
from robustforge.cli.job import device_of
from robustforge.config import tables
from robustforge.config.instantiate import build
from robustforge.config.locate import config_folder
from robustforge.config.outputs import check_output
from robustforge.config.places import settled
from robustforge.config.restore import processes_of, restored
from robustforge.config.run_folder import environment
from robustforge.config.values import check_command, check_run
from robustforge.data.adversarial_set import begin_set, close_set, open_set
from robustforge.defenses.stages import CraftStage
from robustforge.evaluation.fitting import check_fits
from robustforge.evaluation.protocol import Cell
from robustforge.files import short_name
from robustforge.fingerprint import describe, weights_hash
from robustforge.float32 import use_full_float32
from robustforge.training.craft import craft
from robustforge.types import UserError

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="adversarial_set")
def _task(cfg: DictConfig) -> None:
    with job():
        make(cfg)


def make(cfg: DictConfig) -> Path:
    """Makes the set, continues one that was interrupted, or finds it finished.

    Returns:
        Its folder, with ``images.npy`` (N, C, H, W) float32 in [0, 1] in the order of the split, and ``manifest.json``.

    Raises:
        UserError: no such run, surface or split, or the folder holds a set made with something else.
    """
    check_command(cfg, tables.AdversarialSet)
    recorded = load_run(cfg)
    merged = settled(merge(recorded, cfg))
    check_run(merged, tables.Run)
    device, name = device_of(merged), str(merged.defense_name)
    use_full_float32()
    defense, data = restored(merged, device, processes_of(recorded))
    surfaces = defense.surfaces()
    if cfg.surface not in surfaces:
        raise UserError(f"surface is '{cfg.surface}': {name} has {', '.join(surfaces)}.")
    surface, attack, threat = surfaces[cfg.surface], build(merged.attack), build(merged.threat)
    check_fits([Cell(name, surface, attack, threat)], defense, data)
    own = f"{short_name(attack.name)}-{cfg.surface}-{cfg.split}"
    folder = Path(str(cfg.out or Path(str(cfg.run)) / "adversarial_sets" / own))
    check_output(folder, "out", Path(str(merged.paths.store_dir)))
    provenance = {
        "model": weights_hash(surface.modules.state_dict()),
        "surface": str(cfg.surface),
        "attack": describe(attack),
        "threat": describe(threat),
        "data": data.fingerprint,
        "split": str(cfg.split),
        "seed": int(cfg.seed),
        "versions": environment()["packages"],
    }
    if open_set(folder, provenance) is not None:
        log.info("%s is there already, made with the same model, attack and data", folder)
        return folder
    begin_set(folder, provenance)
    stage = CraftStage(str(cfg.split), lambda: surface, attack, threat)
    craft(stage, data, folder, int(cfg.seed), device, not cfg.progress, split=str(cfg.split))
    close_set(folder, provenance)
    log.info("wrote %s", folder)
    return folder


def main() -> None:
    """Console entry point."""
    run(_task, "adversarial_set")


if __name__ == "__main__":
    main()
