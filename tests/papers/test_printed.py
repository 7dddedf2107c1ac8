"""The papers' numbers as shipped, and how one of them is found."""

import pytest

from robustforge.papers.printed import list_paper_tables, load_paper_table, paper_row, paper_value


def test_every_paper_table_loads_and_is_named_by_its_id():
    names = list_paper_tables()
    assert len(names) == 21
    assert "memdef_table1" in names
    for name in names:
        table = load_paper_table(name)
        assert table["id"] == name
        assert table["rows"]
        assert {"paper", "caption", "dataset", "metric"} <= set(table)
    with pytest.raises(ValueError, match="memdef_table1"):
        load_paper_table("memdef_table9")


def test_paper_numbers_are_found_in_every_layout():
    assert paper_value(paper_row(load_paper_table("memdef_table1"), "Memory-Defense"), "PGD", 1) == 89.8
    assert paper_value(paper_row(load_paper_table("memdef_table3"), "Memory-Defense"), "fmnist.FGSM") == 89.4
    table = load_paper_table("dfl_pcl_table1")
    assert paper_value(paper_row(table, {"training": "No Defense", "model": "Dynamic"}), "FGSM") == 14.04
    with pytest.raises(ValueError, match="2 rows"):
        paper_row(table, "Dynamic")
    with pytest.raises(ValueError, match="no column 'BIM'"):
        paper_value(table["rows"][0], "BIM")
    with pytest.raises(ValueError, match="paper_index, 0 to 1"):
        paper_value(paper_row(load_paper_table("memdef_table1"), "Memory-Defense"), "PGD")
