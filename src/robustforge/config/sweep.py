"""One summary table at the end of a multirun."""

from __future__ import annotations

import json
import logging
import sys
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
from robustforge.reporting.seeds import over_seeds
from robustforge.reporting.sweep import STATE, summary_of_runs

log = logging.getLogger(__name__)


class SweepSummary(Callback):
    """Hydra callback: collects every job's result.json, prints a table and writes summary.csv and summary.md."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once, in the sweep's own process; ends it with exit code 1 where a job failed."""
        folder = Path(str(config.hydra.sweep.dir))
        jobs = [path.parent for path in sorted(folder.glob("**/overrides.json"), key=lambda p: p.stat().st_mtime_ns)]
        told = [(job.name, _overrides(job / "overrides.json"), _result(job)) for job in jobs]
        results = [(overrides, result) for _, overrides, result in told if overrides is not None]
        if not results:
            return
        for name, summary in (("summary", summary_of_runs(results)), ("summary_over_seeds", over_seeds(results))):
            if summary is not None:
                Console().print(summary.table(name.replace("_", " ")))
                write_text(folder / f"{name}.md", summary.markdown())
                write_text(folder / f"{name}.csv", summary.csv())
        if config.get("report", True) and any("cells" in result for _, result in results):
            with optional("report.html"):
                lost = [f"{' '.join(overrides)}: no result" for overrides, result in results if "failed" in result]
                path = write_report([folder], folder / "report.html", failed=lost)
                Console().print(f"To read and to share: {path}")
        Console().print(f"{len(results)} runs in {folder}")
        failed = [name for name, _, result in told if "failed" in result]
        if failed:
            print(
                f"Error: {len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}. The same command runs only "
                "these again.",
                file=sys.stderr,
            )
            sys.exit(1)  # Hydra makes a warning of any other exception


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


def _result(job: Path) -> dict[str, Any]:
    """What a job left in its folder; ``{"failed": reason}`` where it failed, or was not finished."""
    if (job / FAILED).exists():
        return {"failed": True}
    if (job / "result.json").exists():
        try:
            return read_result(job)
        except ValueError as error:
            log.warning("%s", error)
            return {"failed": str(error)}
    return {STATE: TRAINED.lower()} if (job / TRAINED).exists() else {"failed": True}
