"""The settings of a run's trainer that change what its stages produce: all of them but the ones that are named here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from robustforge.config.identity import is_shown
from robustforge.config.trust import load_plain
from robustforge.files import plain
from robustforge.training import distributed
from robustforge.types import DamagedError, UserError

# each stage has its own, whatever the trainer is given
_OF_STAGES = {
    "max_epochs": "epochs belong to the stages of the defense (see its YAML file)",
    "min_epochs": "epochs belong to the stages of the defense (see its YAML file)",
    "gradient_clip_val": "give gradient_clip of the stage's training",
    "callbacks": "give +callbacks.<name>",
    "logger": "give logger=csv|wandb|tensorboard",
    "default_root_dir": "give paths.output_dir and paths.store_dir",
    "num_sanity_val_steps": "leave it out",
    "max_time": "what a stage has learned by then depends on the machine; give epochs or trainer.max_steps",
}
# where a stage is computed: the number of processes and the precision, which these lead to, are in the key
_PLACES = ("_target_", "_partial_", "accelerator", "devices", "num_nodes", "precision")
_SAME = {"strategy": ("auto", "ddp"), "use_distributed_sampler": (False,), "enable_checkpointing": (False,)}
_SHOWING = ("StageProgress", "ProgressBar", "ModelSummary", "LearningRateMonitor", "DeviceStatsMonitor")


def limits_of(cfg: DictConfig, precision: str, processes: int | None = None) -> dict[str, Any]:
    """The trainer settings that change what a stage produces; part of the key of every fit.

    Args:
        cfg: of the run, resolved.
        precision: in which it trains, Lightning's word.
        processes: that train together; None for those of this job.
    """
    settings = _plain(cfg.trainer)
    found = {key: value for key, value in settings.items() if key not in _PLACES and _decides(key, value)}
    callbacks = {key: node for key, node in _plain(cfg.callbacks).items() if not _shows(node)}
    ours = {"precision": precision, "processes": processes or distributed.world_size(), "threads": cfg.get("threads")}
    limits: dict[str, Any] = plain({**found, **ours, "callbacks": callbacks})
    return limits


def check_limits(cfg: DictConfig) -> None:
    """Refuses settings of the trainer with which nothing would be trained, or that the stages decide.

    Raises:
        UserError: names the setting.
    """
    settings = _plain(cfg.trainer)
    for key, advice in _OF_STAGES.items():
        if settings.get(key) is not None:
            raise UserError(f"trainer.{key} is not for a run to set: {advice}.")
    if settings.get("enable_checkpointing"):
        raise UserError("trainer.enable_checkpointing is not for a run to set: the store keeps what stages produce.")
    for key in ("limit_train_batches", "max_steps"):
        value = settings.get(key)
        if value is not None and not isinstance(value, bool) and value == 0:
            raise UserError(f"trainer.{key} is 0, so that nothing would be trained: give 1 or more, or leave it out.")


def with_threads(cfg: DictConfig, folder: Path) -> DictConfig:
    """The configuration with the number of threads that its run computes with on the CPU; None on a GPU.

    Sums of floating-point numbers depend on it, and so does what a stage produces. It is what the command says, else
    what the run folder says (a run that goes on on another machine), else what PyTorch takes here.

    Args:
        cfg: of the run, resolved.
        folder: of the run.

    Raises:
        UserError: no whole number above 0.
    """
    asked = cfg.get("threads")
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, int) or asked < 1):
        raise UserError(f"threads is {asked}: give a whole number of 1 or more, or null for as many as PyTorch takes.")
    made = cfg.copy()
    with open_dict(made):
        made.threads = asked or _begun_with(folder, _usual(cfg))
    return made


def _usual(cfg: DictConfig) -> int | None:
    on_gpu = cfg.trainer.accelerator not in ("cpu", "auto") or (
        cfg.trainer.accelerator == "auto" and torch.cuda.is_available()
    )
    return None if on_gpu else torch.get_num_threads()


def _begun_with(folder: Path, otherwise: int | None) -> int | None:
    try:
        threads = load_plain(folder / "config.yaml").get("threads", otherwise)
    except DamagedError:  # none yet; or damaged, which is said elsewhere
        return otherwise
    return threads if threads is None or isinstance(threads, int) else otherwise


def _plain(node: Any) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
    return {str(key): value for key, value in (found or {}).items()}


def _decides(key: str, value: Any) -> bool:
    return not is_shown(f"trainer.{key}") and value not in _SAME.get(key, ())


def _shows(node: Any) -> bool:
    """Whether a callback only shows something."""
    target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    return target.startswith(("robustforge.", "lightning.")) and target.endswith(_SHOWING)
