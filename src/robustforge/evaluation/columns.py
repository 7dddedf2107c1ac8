"""What one attacked batch adds to the records: tensors to numpy columns (see :mod:`robustforge.records.schema`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustforge.attacks.core.geometry import NORMS
from robustforge.records.members import member_column
from robustforge.types import AttackResult, Batch, DefenseOutput


def batch_columns(
    batch: Batch, result: AttackResult, output: DefenseOutput, threshold: float | None, skipped: Tensor | None = None
) -> dict[str, NDArray[Any]]:
    """Per-sample columns of one attacked batch, as numpy arrays (B,); (B, 6) those of an ensemble's members.

    Args:
        batch: the clean images.
        result: what the attack returned.
        output: the system's float32 answer to ``result.x_adv``.
        threshold: risk above which the system rejects, or None.
        skipped: (B,) bool, the images that were not attacked, or None where all were.
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
        **{name: _numpy(norm(delta).double()) for name, norm in NORMS.items()},
        "forwards": _numpy(result.forwards),
        "backwards": _numpy(result.backwards),
        "zero_gradient": nan if trace is None else _numpy(trace.zero_gradient.double()),
        "loss_gain": nan if trace is None else _numpy(trace.loss_gain.double()),
        "best_at": nan if trace is None else _numpy(trace.best_at.double()),
        "skipped": np.zeros(len(batch.y), dtype=bool) if skipped is None else _numpy(skipped),
        **member_columns(result, skipped),
    }


def member_columns(result: AttackResult, skipped: Tensor | None = None) -> dict[str, NDArray[Any]]:
    """The columns of :mod:`robustforge.records.members`, whose fields stand in this order."""
    never = torch.zeros_like(result.success)
    broken = torch.stack([never, *(member.broken for member in result.members)]).any(0)
    standing, found = (~result.success | broken) & (True if skipped is None else ~skipped), {}
    for number, one in enumerate(result.members):
        sampled = torch.full_like(never, one.sampled)
        parts = (standing, one.attacked & standing, one.broken, sampled, one.forwards, one.backwards)
        found[member_column(number, one.name)] = _numpy(torch.stack([part.long() for part in parts], 1))
        standing = standing & ~one.broken
    return found


def _numpy(values: Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy()
