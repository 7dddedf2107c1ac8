"""The cost model of docs/scaling.md, against numbers added up by hand."""

import pyarrow as pa
import pytest
from benchmarks._cost import Costs, Pass

from robustforge.records.schema import SCHEMA

NAN = float("nan")


def records(forwards, backwards):
    """Two cells of clean and pgd, one of them with missing values in its name: 2 images and 3."""
    rows = {one.name: ["" if pa.types.is_string(one.type) else 0] * 5 for one in SCHEMA}
    rows |= {
        "attack": ["clean", "clean", "pgd", "pgd", "pgd"],
        "false_positive_rate": [NAN] * 5,
        "eps": [NAN, NAN, 0.1, 0.1, 0.1],
    }
    return pa.table(rows | {"forwards": forwards, "backwards": backwards}).cast(SCHEMA)


MODEL = Costs(Pass(fixed=1.0, each=0.1), Pass(fixed=2.0, each=0.5))
FOUND = records([1, 1, 10, 3, 7], [0, 0, 9, 2, 6])
PASSES = {"clean": 1 + 0.1 * 2, "pgd": (10 + 0.1 * 20) + (2 * 9 + 0.5 * 17)}


def test_passes_are_added_up_cell_by_cell():
    """The longest image pays the fixed part, all the rest."""
    assert MODEL.seconds(FOUND) == pytest.approx(sum(PASSES.values()))


def test_what_attacks_do_beside_passes_is_fitted_to_two_evaluations():
    """PGD spends 0.25 s a step and 0.5 s an image and step; clean nothing, and is once faster than its passes."""
    other = records([1, 1, 4, 4, 4], [0, 0, 3, 3, 3])
    passes = (4 + 0.1 * 12) + (2 * 3 + 0.5 * 9)
    pilots = [
        (FOUND, {"clean": PASSES["clean"], "pgd": PASSES["pgd"] + 0.25 * 10 + 0.5 * 20}),
        (other, {"clean": 0.1, "pgd": passes + 0.25 * 4 + 0.5 * 12}),
    ]
    fitted = MODEL.fitted(pilots)
    assert (fitted.beyond["pgd"].fixed, fitted.beyond["pgd"].each) == (pytest.approx(0.25), pytest.approx(0.5))
    assert fitted.seconds(FOUND) == pytest.approx(sum(PASSES.values()) + 0.25 * 10 + 0.5 * 20)
