import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robustforge.records.records import (
    Outcomes,
    outcomes,
    paired_difference,
    read_records,
    summarize,
    worst_case,
    worst_outcomes,
)
from robustforge.records.statistics import wilson

from .conftest import BIG, EPS, held, join, make_cell


def by_name(cells):
    return {(c.system, c.attack, c.surface, round(c.eps * 255)): c for c in cells}


def test_wilson_against_hand_value():
    # p = .5, n = 10, z = 1.96: center .5, half = 1.96 * sqrt(.025 + .0096) / 1.38416 = .2634
    assert wilson(5, 10) == pytest.approx((23.66, 76.34), abs=0.01)
    assert wilson(0, 10) == pytest.approx((0.0, 27.75), abs=0.01)
    assert wilson(10, 10) == pytest.approx((72.25, 100.0), abs=0.01)
    assert wilson(0, 0) == (0.0, 100.0)


def test_summarise_by_hand(small):
    cells = by_name(summarize(small))
    assert len(cells) == 7
    assert cells["undefended", "clean", "none", 0].accuracy == 90
    assert cells["memdef", "pgd", "selector", 9].accuracy == 70
    assert cells["memdef", "pgd", "slot_given", 25].accuracy == 50
    cell = cells["memdef", "pgd", "slot_given", 25]
    assert (cell.n, cell.seed, cell.forwards, cell.backwards) == (10, 3, 10, 5)
    assert cell.mean_linf == pytest.approx(BIG)
    assert cell.interval == wilson(5, 10)


def test_order_of_recording_is_kept(small):
    assert [(c.system, c.attack) for c in summarize(small)][:3] == [
        ("undefended", "clean"), ("undefended", "pgd"), ("memdef", "clean"),
    ]  # fmt: skip
    assert read_records(small).systems() == ["undefended", "memdef"]


def test_refusals_help_under_attack_and_cost_when_clean():
    right, accepted = [1, 1, 0, 0], [1, 0, 1, 0]
    cells = by_name(
        summarize(
            join(
                make_cell("d", "clean", "none", 0.0, right, accepted=accepted),
                make_cell("d", "pgd", "end_to_end", EPS, right, accepted=accepted),
            )
        )
    )
    assert cells["d", "clean", "none", 0].accuracy == 25
    assert cells["d", "pgd", "end_to_end", 9].accuracy == 75
    assert cells["d", "clean", "none", 0].rejected == 50


def test_worst_case_is_per_sample_and_counts_clean_errors(small):
    # lost at 9/255: clean 8; fgsm 7; pgd on the slot 6; pgd on the selector 0, 1, 2
    cell = worst_case(small, "memdef", "linf", EPS)
    assert (cell.accuracy, cell.n, cell.attack, cell.surface) == (40, 10, "worst_case", "all")
    assert (cell.forwards, cell.backwards) == (40, 20)
    assert worst_outcomes(small, "memdef", "linf", EPS).correct.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1]
    assert worst_case(small, "memdef", "linf", EPS, surfaces=["slot_given"]).accuracy == 70
    assert worst_case(small, "memdef", "linf", EPS, attacks=["fgsm"]).accuracy == 80
    assert worst_case(small, "memdef", "linf", BIG).accuracy == 50


def test_worst_case_judges_only_samples_of_every_cell():
    columns = join(
        make_cell("d", "clean", "none", 0.0, held(10, 10)),
        make_cell("d", "fgsm", "a", EPS, [1, 0, 1, 1, 1, 1], index=[9, 7, 5, 4, 3, 2]),
        make_cell("d", "pgd", "a", EPS, [0, 1, 1, 1], index=[3, 4, 5, 0]),
    )
    # common: 3, 4, 5; pgd breaks 3
    result = worst_outcomes(columns, "d", "linf", EPS)
    assert result.index.tolist() == [3, 4, 5]
    assert result.correct.tolist() == [False, True, True]
    assert worst_case(columns, "d", "linf", EPS).n == 3


def test_worst_case_never_exceeds_any_cell(large):
    for system in ("undefended", "selector", "memdef"):
        worst = worst_case(large, system, "linf", EPS).accuracy
        assert worst <= min(c.accuracy for c in summarize(large) if c.system == system and c.eps <= EPS + 1e-6)


def test_worst_case_of_an_unknown_budget_says_what_to_do(small):
    with pytest.raises(ValueError, match="choose a recorded budget"):
        worst_case(small, "memdef", "linf", 0.5)


def test_budget_is_found_with_few_digits(small):
    assert worst_case(small, "memdef", "linf", 0.0353).accuracy == 40


def test_paired_difference():
    index = np.arange(200)
    first, second = Outcomes(index, index < 150), Outcomes(index[::1], index < 100)
    result = paired_difference(first, second)
    assert (result.points, result.n) == (25, 200)
    # standard error 100 * sqrt(.25 * .75 / 200) = 3.06
    assert result.low == pytest.approx(25 - 1.96 * 3.06, abs=1)
    assert result.high == pytest.approx(25 + 1.96 * 3.06, abs=1)
    same = paired_difference(first, first)
    assert (same.points, same.low, same.high) == (0, 0, 0)
    assert paired_difference(first, Outcomes(index[100:], index[100:] < 100)).n == 100
    with pytest.raises(ValueError, match="share no sample"):
        paired_difference(first, Outcomes(index + 1000, index < 1))


def test_outcomes_are_sorted_by_sample():
    part = read_records(make_cell("d", "pgd", "a", EPS, [1, 0, 1], index=[5, 2, 9]))
    result = outcomes(part)
    assert result.index.tolist() == [2, 5, 9]
    assert result.correct.tolist() == [False, True, True]


def test_parquet_round_trip(small, tmp_path):
    columns = dict(small)
    columns["eps"] = columns["eps"].astype(np.float32)
    columns["risk"] = pa.nulls(len(columns["index"]), pa.float32())
    pq.write_table(pa.table(columns), tmp_path / "records.parquet")
    assert [c.accuracy for c in summarize(tmp_path)] == [c.accuracy for c in summarize(small)]
    assert len({c.eps for c in summarize(tmp_path)}) == 3


def test_bad_records_are_refused(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="evaluate the run first"):
        read_records(tmp_path)
    with pytest.raises(ValueError, match="lack the columns success"):
        read_records({name: values for name, values in small.items() if name != "success"})
    with pytest.raises(ValueError, match="a sample twice"):
        read_records(join(small, small))
