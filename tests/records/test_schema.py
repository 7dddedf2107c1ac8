"""The file of records: what is written comes back, and what older versions wrote can be read."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from recorded import EPS

from robustforge.records.schema import COLUMNS, SCHEMA, cell_table, join_tables, read_table, write_table
from robustforge.records.table import CellKey, read_records
from robustforge.types import Threat

FLOATS = [field.name for field in SCHEMA if field.type == "double"]


def batch(start, count):
    floats = ("risk", "linf", "l2", "zero_gradient", "loss_gain", "best_at")
    whole = ("label", "prediction", "forwards", "backwards")
    return {
        "index": np.arange(start, start + count)[::-1],
        **{name: np.arange(count) for name in whole},
        **{name: np.linspace(0, 1, count) for name in floats},
        "success": np.ones(count, dtype=bool),
        "accepted": np.ones(count, dtype=bool),
    }


def written(folder):
    clean = cell_table([batch(3, 2), batch(0, 3)], "d", "clean", "none", None, 7, seconds=1.5)
    threat = Threat("linf", EPS)
    attacked = cell_table([batch(0, 4)], "d", "pgd", "end_to_end", threat, 7, rate=0.05, threshold=0.5, check="steps",
                          evades=True, seconds=2.5)  # fmt: skip
    empty = cell_table([batch(0, 0)], "d", "fgsm", "end_to_end", threat, 7)
    write_table(join_tables([clean, attacked, empty]), folder / "records.parquet")
    return folder


def test_cells_come_back_sorted_with_their_seconds(tmp_path):
    records = read_records(written(tmp_path))
    clean = CellKey("d", "clean", "none", "none", 0.0)
    attacked = CellKey("d", "pgd", "end_to_end", "linf", round(EPS, 7), 0.05, "steps")
    assert list(records.cells) == [clean, attacked]
    assert records.cells[clean]["index"].tolist() == [0, 1, 2, 3, 4]
    assert records.cells[clean]["label"].tolist() == [2, 1, 0, 1, 0]
    assert records.seconds == {clean: 1.5, attacked: 2.5}
    assert np.isnan(records.cells[clean]["threshold"]).all()
    assert records.cells[attacked]["evades"].all()


def test_the_file_has_the_schema(tmp_path):
    assert pq.read_schema(written(tmp_path) / "records.parquet").equals(SCHEMA)
    assert [column.name for column in COLUMNS] == SCHEMA.names
    assert all(column.meaning for column in COLUMNS)


def test_older_files_get_the_columns_that_they_lack(tmp_path):
    table = pq.read_table(written(tmp_path) / "records.parquet")
    late = [column for column in COLUMNS if column.default is not None]
    old = table.drop_columns([column.name for column in late]).set_column(
        0, "system", table["system"].dictionary_encode()
    )
    read = read_table(old)
    assert read.schema.equals(SCHEMA)
    for column in late:
        assert set(map(str, read[column.name].to_pylist())) == {str(column.default)}
    with pytest.raises(ValueError, match="lack the columns risk"):
        read_table(old.drop_columns(["risk"]))


def test_columns_by_name_and_tables_are_the_same(tmp_path):
    table = pq.read_table(written(tmp_path) / "records.parquet")
    columns = {name: table[name].to_numpy() for name in table.column_names}
    for source in (columns, tmp_path, str(tmp_path / "records.parquet")):
        for name in SCHEMA.names:
            assert np.array_equal(read_table(source)[name].to_numpy(), table[name].to_numpy(), equal_nan=name in FLOATS)
