"""A table's result file that was made in parts: what the new runs give, and what the file had before."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    """
    if old.get("overrides") != new["overrides"]:
        return dict(new)
    before = {(cell["row"], cell["column"]): cell for cell in old["cells"]}
    same = {run for run, entry in new["runs"].items() if _same(entry, old["runs"].get(run))}
    kept = {run for run in old["runs"] if run in spec.runs and run not in new["runs"]}
    known = old["runs"].keys() | new["runs"].keys()
    cells, other = [], set()
    for wanted, cell in zip(spec.cells, new["cells"], strict=True):
        needs = {run for run in (*wanted.run, wanted.adapted_run, wanted.baseline) if run in known}
        theirs = before.get((cell["row"], cell["column"]))
        if theirs is not None and needs & kept and needs <= kept | same:
            cell = theirs
        elif theirs is not None and len(wanted.run) > 1:
            cell = _over_both(wanted, cell, theirs, [run for run in kept if run not in changed])
        if theirs != cell:
            other |= needs
        cells.append(cell)
    runs = {}
    for run in spec.runs:
        if run in kept or (run in same and run not in other):
            runs[run] = old["runs"][run]
        elif run in new["runs"]:
            runs[run] = new["runs"][run]
    seconds = new["seconds"] if runs == new["runs"] else max(new["seconds"], old["seconds"])
    seconds = old["seconds"] if runs == old["runs"] else seconds
    return {**new, "seconds": seconds, "runs": runs, "cells": cells}


def _over_both(
    wanted: CellSpec, new: Mapping[str, Any], old: Mapping[str, Any], kept: Sequence[str]
) -> Mapping[str, Any]:
    """A cell that averages several runs: those at hand, and of the old file those that are kept."""
    now, then = read_cell(new), read_cell(old)
    each = {run: then.by_run[run] for run in kept if run in then.by_run} | dict(now.by_run)
    if not each.keys() - now.by_run.keys():
        return new
    missing = replace(now, ours=None, adapted=None, by_run={})
    return written_cell(over_runs({run: each.get(run, missing) for run in wanted.run}, wanted.metric, wanted.partial))


def _same(new: Mapping[str, Any], old: Mapping[str, Any] | None) -> bool:
    return old is not None and all(new[key] == old.get(key) for key in ("overrides", "data", "depends", "stages"))
