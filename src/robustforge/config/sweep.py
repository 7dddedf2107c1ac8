"""One summary table at the end of a multirun."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from robustforge.config.isolated import FAILED, TRAINED
from robustforge.files import write_text
from robustforge.optional import optional
from robustforge.reporting.html.write import write_report
from robustforge.reporting.result import read_result
from robustforge.reporting.sweep import STATE, summary_of_runs


class SweepSummary(Callback):
    """Hydra callback: collects every job's result.json, prints a table and writes summary.csv and summary.md."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once, in the sweep's own process."""
        folder = Path(str(config.hydra.sweep.dir))
        results = []
        for path in sorted(folder.glob("**/overrides.json"), key=lambda p: p.stat().st_mtime):
            overrides = json.loads(path.read_text())
            results.append((overrides, _result(path.parent)))
        if not results:
            return
        summary = summary_of_runs(results)
        Console().print(summary.table())
        write_text(folder / "summary.md", summary.markdown())
        write_text(folder / "summary.csv", summary.csv())
        if config.get("report", True) and any(result and "cells" in result for _, result in results):
            with optional("report.html"):
                failed = [f"{' '.join(overrides)}: no result" for overrides, result in results if result is None]
                Console().print(
                    f"To read and to share: {write_report([folder], folder / 'report.html', failed=failed)}"
                )
        Console().print(f"{len(results)} runs in {folder}")


def _result(job: Path) -> dict[str, Any] | None:
    """What a job left in its folder; None where it failed, or was not finished."""
    if (job / FAILED).exists():
        return None
    if (job / "result.json").exists():
        return read_result(job)
    return {STATE: TRAINED.lower()} if (job / TRAINED).exists() else None
