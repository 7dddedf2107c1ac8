"""One record a (sample, attack, surface): columns of plain numbers, written as parquet in one rename."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from robustforge.attacks.core.geometry import l2_norm, linf_norm
from robustforge.files import atomic_write
from robustforge.fingerprint import code_state
from robustforge.types import AttackResult, Batch, DefenseOutput, Threat

SCHEMA = pa.schema(
    [
        ("system", pa.string()),
        ("attack", pa.string()),
        ("surface", pa.string()),
        ("norm", pa.string()),
        ("eps", pa.float64()),
        ("seed", pa.int64()),
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("prediction", pa.int64()),
        ("success", pa.bool_()),
        ("accepted", pa.bool_()),
        ("risk", pa.float64()),
        ("linf", pa.float64()),
        ("l2", pa.float64()),
        ("forwards", pa.int64()),
        ("backwards", pa.int64()),
        ("zero_gradient", pa.float64()),
        ("loss_gain", pa.float64()),
        ("best_at", pa.float64()),
        ("false_positive_rate", pa.float64()),
        ("threshold", pa.float64()),
        ("check", pa.string()),
        ("evades", pa.bool_()),
    ]
)
SECONDS = b"robustforge.seconds"  # kept beside the table, so that equal evaluations have equal columns
CODE = b"robustforge.code"  # metadata: which code measured it, as JSON; of joined tables all of them
_CELL = ("system", "attack", "surface", "norm", "eps", "false_positive_rate", "check")


def batch_columns(batch: Batch, result: AttackResult, output: DefenseOutput, threshold: float | None) -> dict[str, Any]:
    """Per-sample columns of one attacked batch, as numpy arrays (B,).

    Args:
        batch: the clean images.
        result: what the attack returned.
        output: the system's float32 answer to ``result.x_adv``.
        threshold: risk above which the system rejects, or None.
    """
    delta = result.x_adv - batch.x
    risk, trace = output.risk, result.trace
    nan = np.full(len(batch.y), np.nan)
    accepted = np.ones(len(batch.y), dtype=bool)
    if risk is not None and threshold is not None:
        accepted = _numpy(risk <= threshold)
    return {
        "index": _numpy(batch.index),
        "label": _numpy(batch.y),
        "prediction": _numpy(output.logits.argmax(1)),
        "success": _numpy(result.success),
        "accepted": accepted,
        "risk": nan if risk is None else _numpy(risk.double()),
        "linf": _numpy(linf_norm(delta).double()),
        "l2": _numpy(l2_norm(delta).double()),
        "forwards": _numpy(result.forwards),
        "backwards": _numpy(result.backwards),
        "zero_gradient": nan if trace is None else _numpy(trace.zero_gradient.double()),
        "loss_gain": nan if trace is None else _numpy(trace.loss_gain.double()),
        "best_at": nan if trace is None else _numpy(trace.best_at.double()),
    }


def cell_table(
    columns: list[dict[str, Any]],
    system: str,
    attack: str,
    surface: str,
    threat: Threat | None,
    seed: int,
    *,
    rate: float | None = None,
    threshold: float | None = None,
    check: str = "",
    evades: bool = False,
    seconds: float = 0.0,
) -> pa.Table:
    """One cell's records, sorted by sample index.

    Args:
        columns: of :func:`batch_columns`, one a batch.
        system: row.
        attack: its name.
        surface: its name.
        threat: budget, or None for clean images.
        seed: of the attack's draws.
        rate: false-positive rate at which the threshold was fitted, or None.
        threshold: risk above which the system rejects, or None.
        check: what the cell checks, or empty.
        evades: whether the attack lowers the risk too.
        seconds: wall time spent on the cell; kept in the table's metadata.
    """
    merged = {key: np.concatenate([part[key] for part in columns]) for key in columns[0]}
    order = np.argsort(merged["index"], kind="stable")
    merged = {key: value[order] for key, value in merged.items()}
    count = len(order)
    constants = {
        "system": [system] * count,
        "attack": [attack] * count,
        "surface": [surface] * count,
        "norm": ["none" if threat is None else threat.norm] * count,
        "eps": np.full(count, 0.0 if threat is None else threat.eps),
        "seed": np.full(count, seed),
        "false_positive_rate": np.full(count, np.nan if rate is None else rate),
        "threshold": np.full(count, np.nan if threshold is None else threshold),
        "check": [check] * count,
        "evades": [evades] * count,
    }
    table = pa.table({**constants, **merged}, schema=SCHEMA)
    return table.replace_schema_metadata({SECONDS: str(seconds).encode(), CODE: json.dumps(code_state()).encode()})


def join_tables(tables: list[pa.Table]) -> pa.Table:
    """All cells in one table, whose metadata tell the seconds of each: [[*cell, seconds], ...] as JSON."""
    spent = []
    for table in tables:
        if len(table):
            values = [table[name][0].as_py() for name in _CELL]
            spent.append([None if value != value else value for value in values])  # NaN, which JSON lacks
            spent[-1].append(float((table.schema.metadata or {}).get(SECONDS, b"0")))
    made_by = {json.dumps(code, sort_keys=True): code for table in tables if (code := _code(table))}
    metadata = {SECONDS: json.dumps(spent).encode(), CODE: json.dumps(list(made_by.values())).encode()}
    return pa.concat_tables(tables).replace_schema_metadata(metadata)


def measured_by(table: pa.Table) -> str | None:
    """Hash of the source of the package that measured a cell, or None for records that do not tell."""
    source = _code(table).get("source")
    return None if source is None else str(source)


def _code(table: pa.Table) -> dict[str, Any]:
    code: dict[str, Any] = json.loads((table.schema.metadata or {}).get(CODE, b"{}"))
    return code


def write_table(table: pa.Table, path: Path) -> None:
    """Writes parquet, whole or not at all."""
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
