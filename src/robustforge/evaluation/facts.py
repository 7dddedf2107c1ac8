"""What a result says about how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from robustforge.data.reencoded import was_jpeg
from robustforge.evaluation.runner import Evaluation
from robustforge.fingerprint import code_state


def facts(evaluation: Evaluation, diagnostics: Mapping[str, float]) -> dict[str, Any]:
    """The part of a result's ``meta`` (see :func:`robustforge.reporting.result.make_result`) that follows from these.

    Args:
        evaluation: that was run.
        diagnostics: figures for the result, by name.
    """
    protocol = evaluation.protocol
    budget = protocol.budgets[-1]
    data = evaluation.data
    return {
        "defense": evaluation.name,
        "seed": protocol.seed,
        "split": "test",
        "norm": budget.norm,
        "eps": budget.eps,
        "rate": protocol.rates[0],
        "protocol": protocol.name,
        "main_attack": None if protocol.main is None else protocol.main.name,
        "strict": protocol.strict,
        "calibration_images": len(data.calibration.labels),
        "data": {"name": data.name, "jpeg": was_jpeg(data.test.images.numpy()), "fingerprint": data.fingerprint},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "diagnostics": dict(diagnostics),
        "code": code_state(),
        "reused_from_other_code": evaluation.reused_from_other_code,
        "random_systems": evaluation.random_systems,
        "left_out": evaluation.left_out,
    }
