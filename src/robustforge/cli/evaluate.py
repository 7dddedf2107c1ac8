"""``python scripts/evaluate.py`` / ``robustforge-evaluate``: attack a run that is trained already."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from robustforge.cli.entry import job, run
from robustforge.cli.pipeline import evaluate_run
from robustforge.config.locate import config_folder
from robustforge.config.places import move_to, settled
from robustforge.config.trust import load_trusted


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="evaluate")
def _task(cfg: DictConfig) -> None:
    with job():
        _evaluate(cfg)


def load_run(cfg: DictConfig) -> DictConfig:
    """The configuration of the trained run in the folder ``cfg.run``, which is not believed.

    Raises:
        UserError: it is no run folder, or builds or looks up what ``cfg.trust`` does not name.
    """
    trust = cfg.get("trust") or []
    return load_trusted(Path(str(cfg.run)), trust if isinstance(trust, str) else list(trust))


def _evaluate(cfg: DictConfig) -> None:
    folder = Path(str(cfg.run))
    merged = merge(load_run(cfg), cfg)
    with open_dict(merged):
        merged.protocol = OmegaConf.create(OmegaConf.to_container(cfg.protocol, resolve=False))
        merged.protocol.seed = cfg.seed
        merged.defense = OmegaConf.merge(merged.defense, cfg.defense)
    merged = settled(merged)
    settings = OmegaConf.to_container(merged.protocol, resolve=True)
    assert isinstance(settings, dict)
    settings |= {"defense": OmegaConf.to_container(cfg.defense)} if cfg.defense else {}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    out = folder / "evaluations" / f"{str(merged.protocol.name).replace('/', '_')}-{digest}"
    if cfg.overwrite and out.exists():
        shutil.rmtree(out)
    evaluate_run(merged, out, overwrite=bool(cfg.overwrite))


def merge(trained: DictConfig, cfg: DictConfig) -> DictConfig:
    """The run's configuration with this command's attack, budget and places."""
    merged = trained.copy()
    with open_dict(merged):
        if cfg.dataset.eps is not None:
            merged.dataset.eps = cfg.dataset.eps
        for key in ("threat", "attack"):
            merged[key] = OmegaConf.create(OmegaConf.to_container(cfg[key], resolve=False))
        merged.trainer.accelerator = cfg.device
        merged.trainer.devices = 1
        merged.trainer.enable_progress_bar = cfg.progress
        merged.logger = {"kind": "csv"}
        merged.store = cfg.store
        merged.report = cfg.get("report", False)  # not of adversarial sets
    move_to(merged, Path(str(cfg.run)), cfg)
    return merged


def main() -> None:
    """Console entry point."""
    run(_task, "evaluate")


if __name__ == "__main__":
    main()
