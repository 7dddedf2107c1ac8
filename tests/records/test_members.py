"""What each attack of an ensemble did: counted by hand, through records, into the result and its table."""

import numpy as np
import pytest

from robustforge.records.members import is_member, member_column, member_facts, member_words
from robustforge.records.schema import cell_table, join_tables
from robustforge.reporting.notes import ensembles
from robustforge.reporting.result import make_result
from robustforge.types import Threat

# standing, attacked, broken, sampled, forwards, backwards of three and of two images; nothing was left of the second
PGD = [[1, 1, 1, 0, 4, 4], [1, 1, 0, 0, 10, 10], [1, 1, 0, 0, 10, 10]], [[1, 1, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]]
SQUARE = [[0, 0, 0, 1, 0, 0], [1, 1, 0, 1, 100, 0], [1, 0, 0, 1, 0, 0]]


def batches():
    names = member_column(0, "pgd"), member_column(10, "sq/uare")
    return [{names[0]: np.array(PGD[0]), names[1]: np.array(SQUARE)}, {names[0]: np.array(PGD[1])}]


def test_sums_by_hand():
    pgd, square = member_facts(batches())
    assert pgd == {
        "attack": "pgd", "standing": 4, "attacked": 4, "broken": 2, "sampled": False, "forwards": 25, "backwards": 25,
        "broken_per_1000_passes": pytest.approx(40),
    }  # fmt: skip
    assert (square["attack"], square["standing"], square["attacked"], square["sampled"]) == ("sq/uare", 2, 1, True)
    assert square["broken_per_1000_passes"] == 0
    assert member_facts([{"index": np.arange(3)}]) == []
    assert is_member("member/0/pgd")
    assert member_words([pgd, square]) == "pgd 40 (2 of 4), sq/uare 0 (0 tried on 1 of 2)"


def test_an_attack_without_a_pass_has_no_rate():
    (facts,) = member_facts([{member_column(0, "none"): np.zeros((3, 6), dtype=int)}])
    assert facts["broken_per_1000_passes"] is None
    assert member_words([facts]) == "none - (0 of 0)"


def test_from_a_cell_to_the_result():
    plain = {
        "label": 0, "prediction": 0, "success": False, "accepted": True, "forwards": 1, "backwards": 1,
        **dict.fromkeys(["risk", "linf", "l2", "zero_gradient", "loss_gain", "best_at"], 0.0),
    }  # fmt: skip
    columns = [
        {"index": np.arange(3) + 3 * k, **{name: np.full(3, value) for name, value in plain.items()}, **part}
        for k, part in enumerate(batches())
    ]
    single = {name: values for name, values in columns[0].items() if not is_member(name)}
    cells = [
        cell_table(columns, "d", "auto_fast", "end_to_end", Threat("linf", 0.1), 0),
        cell_table([single], "d", "pgd", "end_to_end", Threat("linf", 0.1), 0),
    ]
    result = make_result(join_tables(cells), {})
    assert result["cells"][0]["members"] == member_facts(batches())
    assert result["cells"][1]["members"] == []
    (line,) = ensembles(result)
    assert line.startswith("d, auto fast")
    assert "new images broken per 1,000 passes: pgd 40 (2 of 4), sq/uare 0 (0 tried on 1 of 2)." in line
