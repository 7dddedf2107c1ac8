"""A paper's table in the dashboard that its runs were sent to, beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from robustforge.config.locate import config_folder
from robustforge.files import plain
from robustforge.optional import optional
from robustforge.papers.compared import REACHED, ComparedCell


def publish_table(extra: Sequence[str], folder: Path, cells: Sequence[ComparedCell], made: Sequence[Path]) -> None:
    """Sends a compared table where its runs went; nothing for ``logger=csv``.

    Args:
        extra: further overrides of its runs, which may name a logger.
        folder: of the table, ``<method>/<table>/<profile>``, which is the name of the group.
        cells: compared.
        made: files of the table and its figures.
    """
    asked = [item for item in extra if item.lstrip("+~").startswith(("logger=", "logger."))]
    if not asked:
        return
    with optional("table in the dashboard"):
        settings = _settings(asked)
        if settings["kind"] == "csv":
            return
        from robustforge.cli.loggers import RunLoggers, Told  # Lightning, for dashboards alone

        group = "/".join(folder.parts[-3:])
        loggers, code = RunLoggers(settings, folder, Told(f"{group}/table", job_type="reproduce", group=group)), 1
        try:
            rows = [plain(asdict(cell)) for cell in cells]
            columns = [key for key in rows[0] if key != "gap"] if rows else []
            table = columns, [[_shown(row[key]) for key in columns] for row in rows]
            counts = {"cells": len(cells), "reached": sum(cell.verdict == REACHED for cell in cells)}
            loggers.publish_tables({"table": table}, {}, made, counts)
            code = 0
        finally:
            loggers.finish(code)


def _settings(asked: Sequence[str]) -> dict[str, Any]:
    """The ``logger`` group that overrides ask for; the runs have checked it."""
    given = dict(item.lstrip("+~").partition("=")[::2] for item in asked)
    option = OmegaConf.load(config_folder() / "logger" / f"{given.pop('logger', 'csv')}.yaml")
    more = OmegaConf.from_dotlist([f"{key.removeprefix('logger.')}={value}" for key, value in given.items()])
    settings: Any = OmegaConf.to_container(OmegaConf.merge(option, more), resolve=True)
    return dict(settings)


def _shown(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
