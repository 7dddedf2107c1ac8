"""``result.json``: what a run folder says about itself in numbers, all of them computed from the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustforge.files import plain
from robustforge.indicators.verdict import comparisons, judged_cells, thresholds
from robustforge.manifest import read_object
from robustforge.records.summary import Cell, summarize, worst_case
from robustforge.records.table import CLEAN, Records, read_records, same_eps

SCHEMA = 1


def make_result(source: Any, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the content of ``result.json``.

    Args:
        source: records, or anything that ``read_records`` takes (a path, a run folder, a pyarrow table).
        meta: ``name``, ``seed``, ``split``, ``n_test``, ``protocol``, ``main_attack``, ``diagnostics``, ``stages``,
            ``seconds``, ``versions``, ``code``, ``data`` (name and fingerprint), ``date``, ``depends`` (digest of what
            the numbers depend on), ``machine``, ``reused_from_other_code`` (labels of cells), ``random_systems`` (rows
            that answer the same image differently) and ``left_out`` (sentences on cells that could not differ) are
            copied. ``defense`` is the row name of the defense (default: the last system recorded), ``norm`` and ``eps``
            are the default budget (default: the only recorded one), ``rate`` the default false-positive rate. With
            ``strict``, a number that an indicator speaks against is not called robust; ``calibration_images`` is
            written beside the thresholds.

    Returns:
        Plain data, ready for ``write_json``. ``objective`` is the defense's worst-case accuracy at the default
        budget in percent; its clean accuracy when nothing attacked it; None when several budgets were recorded and
        none of them is the default one. Cells carry their ``indicators``, the names of the ``violated`` ones and,
        where the protocol is strict and attacked them, a ``verdict``.
    """
    records = read_records(source)
    cells = summarize(records)
    budgets = {(c.system, c.norm, c.eps, c.rate): None for c in cells if c.attack != CLEAN}
    worst = [worst_case(records, system, norm, eps, rate=rate) for system, norm, eps, rate in budgets]
    defense = str(meta.get("defense") or _last_system(records))
    objective, objective_of = _objective(cells, worst, defense, meta)
    random = list(meta.get("random_systems") or ())
    told, told_worst = judged_cells(records, cells, worst, bool(meta.get("strict")), random)
    result = {
        "schema": SCHEMA,
        "name": meta.get("name", defense),
        "seed": meta.get("seed"),
        "split": meta.get("split", "test"),
        "n_test": meta.get("n_test", max((c.n for c in cells), default=0)),
        "defense": defense,
        "protocol": meta.get("protocol"),
        "main_attack": meta.get("main_attack"),
        "strict": bool(meta.get("strict")),
        "cells": [asdict(c) | more for c, more in zip(cells, told, strict=True)],
        "worst_case": [asdict(c) | more for c, more in zip(worst, told_worst, strict=True)],
        "checks": [asdict(c) for c in summarize(records, checks=True)],
        "comparisons": comparisons(records, cells, worst, defense),
        "thresholds": thresholds(records, meta.get("calibration_images")),
        "random_systems": random,
        "left_out": list(meta.get("left_out") or ()),
        "diagnostics": meta.get("diagnostics", {}),
        "stages": meta.get("stages", []),
        "seconds": meta.get("seconds"),
        "objective": objective,
        "objective_of": objective_of,
        "versions": meta.get("versions", {}),
        "code": meta.get("code", {}),
        "data": meta.get("data", {}),
        "date": meta.get("date"),
        "depends": meta.get("depends"),
        "machine": meta.get("machine"),
        "reused_from_other_code": list(meta.get("reused_from_other_code", ())),
    }
    tidy: dict[str, Any] = plain(result)
    return tidy


def _last_system(records: Records) -> str:
    names = [name for name in records.systems() if name != "undefended"] or records.systems()
    if not names:
        raise ValueError("The records hold no row: evaluate the run on at least one sample.")
    return names[-1]


def _objective(
    cells: list[Cell], worst: list[Cell], defense: str, meta: Mapping[str, Any]
) -> tuple[float | None, dict[str, Any] | None]:
    """The number a sweep maximizes, and what it is the accuracy of."""
    mine = [c for c in worst if c.system == defense]
    if not mine:
        mine = [c for c in cells if c.system == defense and c.attack == CLEAN]
    elif meta.get("eps") is not None:
        mine = [c for c in mine if same_eps(c.eps, float(meta["eps"])) and c.norm == meta.get("norm", c.norm)]
    if meta.get("rate") is not None:
        mine = [c for c in mine if c.rate in (None, meta["rate"])]
    if len(mine) != 1:
        return None, None
    cell = mine[0]
    return cell.accuracy, {
        "system": defense,
        "attack": cell.attack,
        "norm": cell.norm,
        "eps": cell.eps,
        "rate": cell.rate,
    }


def read_result(path: str | Path) -> dict[str, Any]:
    """Reads ``result.json``.

    Args:
        path: the file, or the run folder that holds it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it was written by another version of the schema, is not a result, or is damaged.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"There is no result at '{path}': the run has not finished, or was never evaluated.")
    result = read_object(path)
    if result.get("schema") != SCHEMA:
        raise ValueError(f"'{path}' is not a result of schema {SCHEMA}: evaluate the run again with this version.")
    return result
