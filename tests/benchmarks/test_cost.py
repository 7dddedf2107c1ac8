"""The cost model of docs/scaling.md, against numbers added up by hand."""

import pyarrow as pa
import pytest
from benchmarks import _cost
from benchmarks._cost import Pass

from robustforge.records.schema import SCHEMA

NAN = float("nan")


def test_passes_are_added_up_cell_by_cell(monkeypatch):
    """Two cells, one of them with missing values in its name: the longest image pays the fixed part, all the rest."""
    monkeypatch.setattr(_cost, "passes_of", lambda *_: (Pass(fixed=1.0, each=0.1), Pass(fixed=2.0, each=0.5)))
    rows = {one.name: ["" if pa.types.is_string(one.type) else 0] * 5 for one in SCHEMA}
    rows |= {
        "attack": ["clean", "clean", "pgd", "pgd", "pgd"],
        "false_positive_rate": [NAN] * 5,
        "eps": [NAN, NAN, 0.1, 0.1, 0.1],
    }
    rows |= {"forwards": [1, 1, 10, 3, 7], "backwards": [0, 0, 9, 2, 6]}
    seconds = _cost.predicted_seconds(pa.table(rows).cast(SCHEMA), None, None)
    assert seconds == pytest.approx((1 + 0.1 * 2) + (10 + 0.1 * 20) + (2 * 9 + 0.5 * 17))
