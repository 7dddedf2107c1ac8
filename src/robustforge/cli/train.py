"""``python train.py`` / ``robustforge-train``: train a defense, attack it, report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from robustforge.cli.entry import job, run
from robustforge.config.isolated import forwarded, launched_by_us, run_job, run_ranks
from robustforge.config.locate import config_folder
from robustforge.types import UserError

MODULE = "robustforge.cli.train"


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
def _task(cfg: DictConfig) -> float | None:
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    overrides = list(hydra_config.overrides.task)
    if hydra_config.mode == RunMode.MULTIRUN:
        return run_job(MODULE, overrides, hydra_config.overrides.hydra, folder)
    outputs = Path(str(cfg.paths.output_dir))
    with job(), _unless_refused(folder, outputs):
        processes = _processes(cfg)
    if processes > 1 and not launched_by_us():
        # quoting keeps commas and equal signs of the folder's name out of Hydra's override grammar
        code = run_ranks(
            MODULE, [*overrides, *forwarded(hydra_config.overrides.hydra), f"hydra.run.dir='{folder}'"], processes
        )
        if code:
            sys.exit(code)
        return None
    from robustforge.cli import pipeline  # torch and Lightning: only a job that runs waits for them

    with job(), _unless_refused(folder, outputs):
        return pipeline.train(cfg, folder)


@contextmanager
def _unless_refused(folder: Path, outputs: Path) -> Iterator[None]:
    """Hydra makes the run folder before it calls us: while it is empty, a refusal takes it away again."""
    try:
        yield
    except UserError:
        with suppress(OSError):  # not empty
            for place in (folder, *folder.parents):
                if outputs.absolute() not in (place.absolute(), *place.absolute().parents):
                    break
                place.rmdir()
        raise


def _processes(cfg: DictConfig) -> int:
    devices = cfg.trainer.devices
    if not isinstance(devices, int) or devices == 0 or devices < -1:
        raise UserError(f"trainer.devices is {devices}: give a number of processes, or -1 for all GPUs.")
    if devices == -1:
        import torch

        devices = torch.cuda.device_count() if cfg.trainer.accelerator == "gpu" else 1
    return devices


def main() -> None:
    """Console entry point."""
    run(_task, "train")


if __name__ == "__main__":
    main()
