"""``python scripts/evaluate.py`` / ``robustforge-evaluate``: attack a run that is trained already."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import nullcontext
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from robustforge.cli.entry import job, run
from robustforge.cli.evaluating import Asked, evaluate_run
from robustforge.cli.finished import say_where
from robustforge.cli.replacing import replacing
from robustforge.cli.robustbench import RobustBench
from robustforge.config import tables
from robustforge.config.given import keep_given
from robustforge.config.locate import config_folder
from robustforge.config.places import move_to, settled
from robustforge.config.restore import processes_of
from robustforge.config.run_folder import was_changed
from robustforge.config.trust import load_trusted
from robustforge.config.values import check_command
from robustforge.evaluation.share import Share
from robustforge.files import short_name

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="evaluate")
def _task(cfg: DictConfig) -> None:
    with job():
        _evaluate(cfg)


def load_run(cfg: DictConfig) -> DictConfig:
    """The configuration of the trained run in the folder ``cfg.run``, which is not believed.

    Raises:
        UserError: it is no run folder, or builds or looks up what ``cfg.trust`` does not name.
    """
    folder = Path(str(cfg.run))
    loaded = load_trusted(folder, cfg.get("trust") or ())
    if was_changed(folder):
        log.warning("'%s' is not the file that the run wrote: it is damaged, or was changed", folder / "config.yaml")
    return loaded


def _evaluate(cfg: DictConfig) -> None:
    check_command(cfg, tables.Evaluate)
    folder, trained = Path(str(cfg.run)), load_run(cfg)
    merged = merge(trained, cfg)
    with open_dict(merged):
        merged.protocol = OmegaConf.create(OmegaConf.to_container(cfg.protocol, resolve=False))
        merged.protocol.seed = cfg.seed
        changed = {key: value for key, value in cfg.defense.items() if key != "baseline" or value is not None}
        merged.defense = OmegaConf.merge(merged.defense, changed)
    merged = keep_given(settled(merged), cfg.get("trust") or ())
    settings = OmegaConf.to_container(merged.protocol, resolve=True)
    assert isinstance(settings, dict)
    if "baseline" in changed:
        changed["baseline"] = Path(str(merged.defense.baseline.weights)).parent.name  # goes by the weights
    settings |= {"defense": OmegaConf.to_container(OmegaConf.create(changed))} if changed else {}
    settings |= {"split": str(merged.split)} if merged.split != "test" else {}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    out = folder / "evaluations" / f"{short_name(str(merged.protocol.name).replace('/', '_'))}-{digest}"
    asked = _asked(cfg)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    with replacing(out, asked.overwrite) if first else nullcontext(out) as fresh:
        evaluate_run(merged, fresh, processes_of(trained), asked, folder)
    if first and asked.share is None:
        say_where(out)


def _asked(cfg: DictConfig) -> Asked:
    export = RobustBench(cfg.export_eps) if cfg.get("export") else None
    share = None if cfg.get("shard") is None else Share.parse(str(cfg.shard))
    return Asked(bool(cfg.overwrite), export, share, bool(cfg.get("merge")))


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
        merged.logger = cfg.get("logger") or {"kind": "csv"}  # adversarial sets have nothing to log
        merged.store = cfg.store
        merged.split = cfg.split
        merged.report = cfg.get("report", False)  # not of adversarial sets
    move_to(merged, Path(str(cfg.run)), cfg)
    return merged


def main() -> None:
    """Console entry point."""
    run(_task, "evaluate")


if __name__ == "__main__":
    main()
