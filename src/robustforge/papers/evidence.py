"""``results/<method>/<table>.json``: the small file that keeps a table's numbers, and what they depend on.

It is written by the command that makes the table and by nothing else. Documents are generated from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from robustforge.files import plain, write_text
from robustforge.manifest import read_object
from robustforge.papers.compared import ComparedCell
from robustforge.papers.comparison import paper_number
from robustforge.papers.specification import CellSpec, TableSpec

SCHEMA = 1
USUAL = "cpu"  # the profile that a file's name leaves out
_DIGITS = 4
_LISTED = ("runs", "cells")  # one line an entry, so that a changed number is a changed line
_LEFT_OUT = ("avg_like_code", "gap", "by_run")
_OF_ALL_RUNS = ("row", "column", "paper", "paper_surface", "adapted_surface", "metric")
_NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "coil100": "COIL-100",
    "imagenette64": "Imagenette at 64 x 64",
    "celeba": "CelebA",
}


def evidence_path(folder: Path, table: str, profile: str) -> Path:
    """Where the file of a table lies: ``<folder>/<table>.json``, with the profile in its name if it is not ``cpu``."""
    return folder / (f"{table}.json" if profile == USUAL else f"{table}.{profile}.json")


def evidence_of(
    table: str,
    profile: str,
    spec: TableSpec,
    extra: Sequence[str],
    cells: Sequence[ComparedCell],
    results: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of the file.

    Args:
        table: ``<method>/<table>``.
        profile: that was run.
        spec: of the table.
        extra: overrides of the command line.
        cells: of :func:`robustforge.papers.comparison.compare`.
        results: by run, the content of ``result.json`` of those that were run.
    """
    runs = {
        run: _run(results[run], [*spec.overrides(run, profile), *extra], spec.diagnostics)
        for run in spec.runs
        if run in results
    }
    return {
        "schema": SCHEMA,
        "table": table,
        "title": spec.title,
        "profile": profile,
        "note": spec.profiles[profile].note,
        "overrides": list(extra),
        "depends": table_digest(spec),
        "seconds": _seconds(results),
        "runs": runs,
        "cells": [written_cell(cell) for cell in cells],
    }


def data_name(data: Mapping[str, Any]) -> str:
    """How a data set is called: copies that went through JPEG are no original."""
    name = str(data.get("name"))
    return _NAMES.get(name, name) + (" (JPEG)" if data.get("jpeg") else "")


def table_digest(spec: TableSpec) -> str:
    """Digest of which numbers a table shows, 16 hexadecimal digits: another one means that its file is stale."""
    usual = {field.name: field.default for field in fields(CellSpec) if field.default is not MISSING}
    shown = []
    for cell in spec.cells:
        given = {key: value for key, value in asdict(cell).items() if key not in usual or value != usual[key]}
        shown.append({**given, "paper": paper_number(cell)})
    return hashlib.sha256(json.dumps(plain(shown), sort_keys=True).encode()).hexdigest()[:16]


def write_evidence(path: Path, content: Mapping[str, Any]) -> Path:
    """Writes the file whole or not at all; one line a run and a cell, keys in a fixed order, numbers rounded."""
    parts = []
    for key, value in content.items():
        if key not in _LISTED:
            parts.append(f" {_text(key)}: {_text(value)}")
        elif isinstance(value, Mapping):
            lines = [f"  {_text(name)}: {_text(entry)}" for name, entry in value.items()]
            parts.append(f" {_text(key)}: {{\n" + ",\n".join(lines) + "\n }")
        else:
            parts.append(f" {_text(key)}: [\n" + ",\n".join(f"  {_text(entry)}" for entry in value) + "\n ]")
    return write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def read_evidence(path: Path) -> dict[str, Any]:
    """Reads the file.

    Raises:
        DamagedError: it is missing or no JSON object.
        ValueError: it was written by another version of the schema.
    """
    content = read_object(path)
    if content.get("schema") != SCHEMA:
        raise ValueError(f"'{path}' is no result file of schema {SCHEMA}: run 'scripts/reproduce.py' for it again.")
    return content


def cells_of(content: Mapping[str, Any]) -> list[ComparedCell]:
    """The cells of a file, as :func:`robustforge.papers.comparison.compare` made them."""
    return [read_cell(given) for given in content["cells"]]


def read_cell(given: Mapping[str, Any]) -> ComparedCell:
    """The cell of which :func:`written_cell` gave the content."""
    values: dict[str, Any] = dict.fromkeys(field.name for field in fields(ComparedCell) if field.default is MISSING)
    values |= dict.fromkeys(("reason", "adapted_reason"), "")
    values |= {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    shared = {name: given[name] for name in _OF_ALL_RUNS if name in given}
    values["by_run"] = {run: read_cell({**shared, **one}) for run, one in given.get("by_run", {}).items()}
    return ComparedCell(**values)


def _run(result: Mapping[str, Any], overrides: list[str], diagnostics: Sequence[str]) -> dict[str, Any]:
    code, data = result["code"], result.get("data") or {}
    told = {name: result["diagnostics"][name] for name in diagnostics if name in result["diagnostics"]}
    entry: dict[str, Any] = _rounded(
        {
            "overrides": overrides,
            "data": {"name": data_name(data), "fingerprint": data.get("fingerprint")},
            "protocol": result["protocol"],
            "seed": result["seed"],
            "depends": result.get("depends"),
            "stages": {stage["name"]: stage["key"][:16] for stage in result["stages"]},
            "training_seconds": {stage["name"]: stage.get("made_in") for stage in result["stages"]},
            "attack_seconds": sum(cell["seconds"] or 0 for cell in (*result["cells"], *result["checks"])),
            **({"diagnostics": told} if told else {}),
            **({"random": result["random_systems"]} if result["random_systems"] else {}),
            "from_other_code": len(result["reused_from_other_code"])
            + sum(bool(stage.get("other_code")) for stage in result["stages"]),
            "version": code.get("version"),
            "commit": code.get("commit"),
            "modified": code.get("modified"),
            "machine": result.get("machine"),
            "date": result.get("date"),
        }
    )
    return entry


def _seconds(results: Mapping[str, Mapping[str, Any]]) -> int:
    """What all runs cost, each shared stage once."""
    stages = {stage["key"]: stage.get("made_in") or 0 for run in results.values() for stage in run["stages"]}
    cells = [cell for run in results.values() for cell in (*run["cells"], *run["checks"])]
    return round(sum(stages.values()) + sum(cell["seconds"] or 0 for cell in cells))


def written_cell(cell: ComparedCell) -> dict[str, Any]:
    """What the file holds of a cell: what it has, and nothing twice."""
    usual = {field.name: field.default for field in fields(ComparedCell)}
    values = {name: value for name, value in asdict(cell).items() if name not in _LEFT_OUT}
    kept = {name: value for name, value in values.items() if value not in (None, "", ()) and value != usual.get(name)}
    each = {run: written_cell(one) for run, one in cell.by_run.items()}
    own = {run: {name: one[name] for name in one if name not in _OF_ALL_RUNS} for run, one in each.items()}
    rounded: dict[str, Any] = _rounded({**kept, "by_run": own} if own else kept)
    return rounded


def _rounded(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, _DIGITS) if isinstance(value, float) else value


def _text(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
