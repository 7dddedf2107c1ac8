"""A table's result file that was made in parts: what the new runs give, and what the file had before."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from robustforge.papers.evidence import read_cell, written_cell
from robustforge.papers.replicates import over_runs
from robustforge.papers.specification import CellSpec, TableSpec


def merged(
    new: Mapping[str, Any], old: Mapping[str, Any], spec: TableSpec, changed: Collection[str] = ()
) -> dict[str, Any]:
    """The new file, with what it lacks from the old one.

    Args:
        new: of the runs that are at hand.
        old: of the same table and profile. Runs that are not at hand, and their cells, are taken from it; so are runs
            that are the same and have the same numbers, with their date, commit and cost.
        spec: of the table.
        changed: runs of the old file that would be others today. They are kept, but no mean is taken over them and
            new ones.

    Returns:
        The content of the file. ``together`` names runs that have to be run together, on one machine: a cell needs the
        records of all of them, and not all are at hand.
    """
    if old.get("overrides") != new["overrides"]:
        return dict(new)
    before = {(cell["row"], cell["column"]): cell for cell in old["cells"]}
    same = {run for run, entry in new["runs"].items() if _same(entry, old["runs"].get(run))}
    kept = {run for run in old["runs"] if run in spec.runs and run not in new["runs"]}
    usable, known = kept.difference(changed), old["runs"].keys() | new["runs"].keys()
    cells, renewed, together = [], set[str](), set[str]()
    for wanted, cell in zip(spec.cells, new["cells"], strict=True):
        needs = wanted.needs & known
        theirs = before.get((cell["row"], cell["column"]))
        if theirs is not None and needs & kept and needs <= kept | same:
            cell = theirs
            together |= needs.intersection(old.get("together", ()))
        elif theirs is not None and needs & usable:
            joined = _joined(wanted, cell, theirs, usable)
            cell, together = (cell, together | needs) if joined is None else (joined, together)
        if theirs != cell:
            renewed |= needs
        cells.append(cell)
    runs = {
        run: old["runs"][run] if run in kept or (run in same and run not in renewed) else new["runs"][run]
        for run in spec.runs
        if run in known
    }
    seconds = new["seconds"] if runs == new["runs"] else max(new["seconds"], old["seconds"])
    seconds = old["seconds"] if runs == old["runs"] else seconds
    return {
        **new,
        "seconds": seconds,
        **({"together": sorted(together)} if together else {}),
        "runs": runs,
        "cells": cells,
    }


def _joined(
    wanted: CellSpec, new: Mapping[str, Any], old: Mapping[str, Any], kept: Collection[str]
) -> dict[str, Any] | None:
    """A cell over the runs at hand and those that are kept; None where the old file has not the number of each."""
    now, then = read_cell(new), read_cell(old)
    if len(wanted.run) == 1 or (then.ours is not None and not then.by_run):
        return None
    each = {run: cell for run, cell in then.by_run.items() if run in kept} | dict(now.by_run)
    missing = replace(now, ours=None, adapted=None, by_run={})
    return written_cell(over_runs({run: each.get(run, missing) for run in wanted.run}, wanted.metric, wanted.partial))


def _same(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    return old is not None and all(new[key] == old.get(key) for key in ("overrides", "data", "depends", "stages"))
