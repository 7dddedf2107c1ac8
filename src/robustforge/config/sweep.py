"""One summary table at the end of a multirun."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from robustforge.config.isolated import FAILED, TRAINED
from robustforge.files import write_text
from robustforge.reporting.result import read_result
from robustforge.reporting.sweep import STATE, summary_of_runs

log = logging.getLogger(__name__)


class SweepSummary(Callback):
    """Hydra callback: collects every job's result.json, prints a table and writes summary.csv and summary.md."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once, in the sweep's own process."""
        folder = Path(str(config.hydra.sweep.dir))
        results = []
        for path in sorted(folder.glob("**/overrides.json"), key=lambda p: p.stat().st_mtime):
            overrides = _overrides(path)
            if overrides is not None:
                results.append((overrides, _result(path.parent)))
        if not results:
            return
        summary = summary_of_runs(results)
        Console().print(summary.table())
        write_text(folder / "summary.md", summary.markdown())
        write_text(folder / "summary.csv", summary.csv())
        Console().print(f"{len(results)} runs in {folder}")


def _overrides(path: Path) -> list[str] | None:
    """Of one job; None for a file that is no list of texts, which is said."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return found
    log.warning("'%s' is damaged: its job is left out of the summary", path)
    return None


def _result(job: Path) -> dict[str, Any] | None:
    """What a job left in its folder; None where it failed, or was not finished."""
    if (job / FAILED).exists():
        return None
    if (job / "result.json").exists():
        try:
            return read_result(job)
        except ValueError as error:
            log.warning("%s", error)
            return None
    return {STATE: TRAINED.lower()} if (job / TRAINED).exists() else None
