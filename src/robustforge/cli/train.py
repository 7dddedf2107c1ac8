"""``python train.py`` / ``robustforge-train``: train a defense, attack it, report."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from robustforge.cli.entry import job, run
from robustforge.config.devices import devices_of
from robustforge.config.isolated import forwarded, launched_by_us, run_dir, run_job, run_ranks
from robustforge.config.locate import config_folder
from robustforge.config.resolvers import register
from robustforge.config.submitted import as_job
from robustforge.config.sweeps import job_key
from robustforge.types import UserError

MODULE = "robustforge.cli.train"
register()  # here too: the processes of a launcher, such as submitit's, import this module and nothing before it


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
def _task(cfg: DictConfig) -> float | None:
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    overrides, of_hydra = (_as_typed(part) for part in (hydra_config.overrides.task, hydra_config.overrides.hydra))
    if hydra_config.mode == RunMode.MULTIRUN:
        with as_job():
            group = Path(hydra_config.sweep.dir).name
            return run_job(MODULE, overrides, of_hydra, folder, job_key(cfg, overrides), group)
    outputs = Path(str(cfg.paths.output_dir))
    with job(), _unless_refused(folder, outputs):
        devices = devices_of(cfg.trainer)
    if devices.processes > 1 and not launched_by_us():
        arguments = [*overrides, *forwarded(of_hydra), run_dir(folder)]
        code = run_ranks(MODULE, arguments, devices.count)
        if code:
            sys.exit(code)
        return None
    from robustforge.cli import pipeline  # torch and Lightning: only a job that runs waits for them

    with job(), _unless_refused(folder, outputs):
        return pipeline.train(cfg, folder)


def _as_typed(overrides: Any) -> list[str]:
    """Overrides for another process, which composes again: interpolations among them are left to it."""
    plain: Any = OmegaConf.to_container(overrides, resolve=False)
    return [str(item) for item in plain]


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


def main() -> None:
    """Console entry point."""
    run(_task, "train")


if __name__ == "__main__":
    main()
