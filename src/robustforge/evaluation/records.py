"""One record a (sample, attack, surface): columns of plain numbers, written as parquet in one rename."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from robustforge.attacks.geometry import l2_norm, linf_norm
from robustforge.types import AttackResult, Batch, DefenseOutput, Threat

SCHEMA = pa.schema(
    [
        ("system", pa.string()), ("attack", pa.string()), ("surface", pa.string()), ("norm", pa.string()),
        ("eps", pa.float64()), ("seed", pa.int64()), ("index", pa.int64()), ("label", pa.int64()),
        ("prediction", pa.int64()), ("success", pa.bool_()), ("accepted", pa.bool_()), ("risk", pa.float64()),
        ("linf", pa.float64()), ("l2", pa.float64()), ("forwards", pa.int64()), ("backwards", pa.int64()),
    ]
)  # fmt: skip


def batch_columns(batch: Batch, result: AttackResult, output: DefenseOutput, threshold: float | None) -> dict[str, Any]:
    """Per-sample columns of one attacked batch, as numpy arrays (B,).

    Args:
        batch: the clean images.
        result: what the attack returned.
        output: the system's float32 answer to ``result.x_adv``.
        threshold: risk above which the system rejects, or None.
    """
    delta = result.x_adv - batch.x
    risk = output.risk
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
    }


def cell_table(
    columns: list[dict[str, Any]], system: str, attack: str, surface: str, threat: Threat | None, seed: int
) -> pa.Table:
    """One cell's records, sorted by sample index."""
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
    }
    return pa.table({**constants, **merged}, schema=SCHEMA)


def write_table(table: pa.Table, path: Path) -> None:
    """Writes parquet to a temporary file, then renames it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".half-{os.getpid()}")
    pq.write_table(table, half)
    os.replace(half, path)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
