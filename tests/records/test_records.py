"""Accuracies and worst cases of records, against values worked out by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded import BIG, EPS, held, join, make_cell

from robustforge.records.statistics import wilson
from robustforge.records.summary import outcomes, summarize, worst_case, worst_outcomes
from robustforge.records.table import read_records


def by_name(cells):
    return {(c.system, c.attack, c.surface, round(c.eps * 255)): c for c in cells}


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
    assert np.isnan([cell.mean_l1, cell.mean_l0, cell.mean_l0_pixels]).all()  # records of before have no such columns
    many = {**small, "l1": np.full(70, 3.0), "l0": np.full(70, 9.0), "l0_pixels": np.full(70, 4.0)}
    (cell, *_) = summarize(many)
    assert (cell.mean_l1, cell.mean_l0, cell.mean_l0_pixels) == (3, 9, 4)


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


def test_cells_are_found_however_the_rows_lie(large):
    order = np.random.default_rng(0).permutation(len(large["index"]))
    shuffled = read_records({name: values[order] for name, values in large.items()})
    cells = read_records(large).cells
    assert list(shuffled.cells) == list(dict.fromkeys(list(cells)[row // 1000] for row in order))  # by their first row
    for key, part in cells.items():
        assert np.array_equal(outcomes(part).correct, outcomes(shuffled.cells[key]).correct)
    assert worst_case(shuffled, "memdef", "linf", EPS).accuracy == worst_case(large, "memdef", "linf", EPS).accuracy
