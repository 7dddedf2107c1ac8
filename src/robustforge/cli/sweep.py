"""One summary table at the end of a multirun."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from robustforge.config.isolated import FAILED, TRAINED
from robustforge.files import write_text
from robustforge.optional import optional
from robustforge.reporting.boards import axis_charts
from robustforge.reporting.headline import IMAGES
from robustforge.reporting.html.write import write_report
from robustforge.reporting.result import read_result
from robustforge.reporting.seeds import axis_curves, folded_rows, numbers_of, over_seeds
from robustforge.reporting.sweep import STATE, Summary, as_mapping, summary_of_runs
from robustforge.reporting.tables import terminal

Results = list[tuple[list[str], dict[str, Any]]]  # (overrides, result) a job
log = logging.getLogger(__name__)


class SweepSummary(Callback):
    """Hydra callback: collects every job's result.json, prints a table and writes summary.csv and summary.md.

    Dashboards get a run of their own for it, in the group of the sweep's jobs.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called once, in the sweep's own process; ends it with exit code 1 where a job failed."""
        folder = Path(str(config.hydra.sweep.dir))
        jobs = [path.parent for path in sorted(folder.glob("**/overrides.json"), key=lambda p: p.stat().st_mtime_ns)]
        told = [(job.name, _overrides(job / "overrides.json"), _result(job)) for job in jobs]
        results = [(overrides, result) for _, overrides, result in told if overrides is not None]
        if not results:
            return
        found = {"summary": summary_of_runs(results), "summary_over_seeds": over_seeds(results)}
        summaries = {name: summary for name, summary in found.items() if summary is not None}
        for name, summary in summaries.items():
            terminal().print(summary.table(name.replace("_", " ") + IMAGES.get(str(config.get("split")), "")))
            write_text(folder / f"{name}.md", summary.markdown())
            write_text(folder / f"{name}.csv", summary.csv())
        if config.get("report", True) and any("cells" in result for _, result in results):
            with optional("report.html"):
                lost = [f"{' '.join(overrides)}: no result" for overrides, result in results if "failed" in result]
                path = write_report([folder], folder / "report.html", failed=lost)
                print(f"To read and to share: {path}")
        if OmegaConf.select(config, "logger.kind") not in (None, "csv"):
            with optional("summary in the dashboard"):
                _publish(config, folder, results, summaries)
        print(f"{len(results)} runs in {folder}")
        failed = [name for name, _, result in told if "failed" in result]
        if failed:
            print(
                f"Error: {len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}. The same command runs only "
                "these again.",
                file=sys.stderr,
            )
            sys.exit(1)  # Hydra makes a warning of any other exception


def _publish(config: DictConfig, folder: Path, results: Results, summaries: dict[str, Summary]) -> None:
    """The summary run: a table over the axes with seeds folded, curves along each, the table of jobs, the page."""
    from robustforge.cli.loggers import RunLoggers, Told  # Lightning, for dashboards alone

    settings: Any = OmegaConf.to_container(config.logger, resolve=True)
    told = Told(f"{folder.name}/summary", [*config.get("tags", ())], job_type="sweep", group=folder.name)
    loggers, code = RunLoggers(settings, folder, told), 1
    try:
        tables = {"sweep": folded_rows(results)}
        tables |= {name: (summary.header, summary.rows) for name, summary in summaries.items()}
        runs = [(as_mapping(one), numbers_of(result)) for one, result in results if "cells" in result]
        objectives = [numbers["objective"] for _, numbers in runs if numbers["objective"] is not None]
        best = {"objective": max(objectives)} if objectives else {}
        files = [folder / name for name in ("report.html", "summary.csv", "summary_over_seeds.csv")]
        loggers.publish_tables(tables, axis_charts(axis_curves(runs)), files, {"runs": len(results), **best})
        code = 0
    finally:
        loggers.finish(code)


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
