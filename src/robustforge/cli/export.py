"""``scripts/export.py`` / ``robustforge-export``: a trained run as a folder of its own, to keep, share and load."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig

from robustforge.cli.entry import job, run
from robustforge.cli.evaluate import load_run
from robustforge.cli.hub import check_repository, hub_api, upload
from robustforge.config.exported import CARD, check_sums, is_exported, write_exported, write_sums
from robustforge.config.locate import config_folder
from robustforge.config.outputs import check_output
from robustforge.config.places import move_to, settled
from robustforge.config.restore import restored
from robustforge.files import write_json, write_text
from robustforge.reporting.card import model_card
from robustforge.reporting.result import read_result
from robustforge.types import UserError

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="export")
def _task(cfg: DictConfig) -> None:
    with job():
        export(cfg)


def export(cfg: DictConfig, api: Any = None) -> Path:
    """Exports a run, and uploads it where ``cfg.push`` names a repository; an exported folder is only uploaded.

    Args:
        cfg: composition of ``export.yaml``.
        api: see :func:`robustforge.cli.hub.upload`; None for the real one.

    Returns:
        The exported folder.

    Raises:
        UserError: no such run, a folder that is not empty, a run that does not come back from what is written, or a
            hub that refused.
    """
    source = Path(str(cfg.run))
    if cfg.push:
        check_repository(str(cfg.push))
        api = api or hub_api()
    if is_exported(source):
        if not cfg.push:
            raise UserError(f"{source} is exported already: give push=<user>/<name> to upload it.")
        check_sums(source)
        folder = source
    else:
        folder = _made(cfg, source)
        log.info("wrote %s", folder)
    if cfg.push:
        log.info("uploaded to %s", upload(folder, str(cfg.push), api, bool(cfg.private)))
    return folder


def _made(cfg: DictConfig, source: Path) -> Path:
    target = Path(str(cfg.to or source / "exported"))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is there already and is not an empty folder: give another one, to=<folder>.")
    trained = load_run(cfg)
    move_to(trained, source, cfg)
    trained = settled(trained)
    check_output(target, "to", Path(str(trained.paths.store_dir)))
    defense, _ = restored(trained, torch.device("cpu"))
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(prefix=".exporting-", dir=target.absolute().parent))
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}): give another folder, to=<folder>.") from error
    try:
        write_exported(workspace, defense, trained)
        _describe(cfg, trained, source, workspace)
        write_sums(workspace)
        workspace.chmod(0o755)  # mkdtemp keeps it to its owner
        os.replace(workspace, target)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return target


def _describe(cfg: DictConfig, trained: DictConfig, source: Path, folder: Path) -> None:
    """What the run and its evaluation say about themselves, and the card."""
    environment = _environment(source)
    environment.pop("run", None)  # tells whether config.yaml was changed; the exported one has hashes
    write_json(folder / "environment.json", environment)
    evaluation = Path(str(cfg.evaluation or source))
    result = _result(evaluation)
    if result is None and cfg.evaluation:
        raise UserError(f"{evaluation} has no result.json: give evaluation=<folder that evaluate.py wrote>.")
    if result is not None:
        write_json(folder / "result.json", result)
    trust = [cfg.trust] if isinstance(cfg.trust, str) else list(cfg.trust or ())
    data = trained.dataset
    names = str(trained.name), str(trained.defense_name), str(data.name)
    write_text(folder / CARD, model_card(*names, list(data.shape), result, environment.get("code") or {}, trust))


def _result(folder: Path) -> dict[str, Any] | None:
    try:
        return read_result(folder) if (folder / "result.json").is_file() else None
    except ValueError as error:
        raise UserError(str(error)) from error


def _environment(source: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((source / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"The run {source} does not say what made it ({error}): train it again.") from error
    return found


def main() -> None:
    """Console entry point."""
    run(_task, "export")


if __name__ == "__main__":
    main()
