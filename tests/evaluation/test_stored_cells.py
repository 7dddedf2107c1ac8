"""Cells in the store: damaged ones are measured again, and two runs at once measure each of them once."""

import json
import logging
import re
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

from robustforge.evaluation.parts import Parts
from robustforge.records.schema import read_table
from robustforge.types import DamagedError, Threat

ONE = {"budgets": (Threat("linf", 0.05),)}


def flip(path, at=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 0xFF
    path.write_bytes(content)


def content(path):
    """Of a table, as text: NaN is like NaN there."""
    return str(pq.read_table(path).to_pydict())


DAMAGE = {
    "pages": (lambda path: flip(path), r"\.parquet' is damaged"),
    "footer": (lambda path: flip(path, -20), r"\.parquet' is damaged"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:50]), r"\.parquet' is damaged"),
    "gone": (lambda path: path.unlink(), r"\.parquet' is missing"),
    "manifest": (lambda path: path.with_suffix(".json").write_text(""), r"\.json' is damaged"),
    "another cell": (
        lambda path: path.with_suffix(".json").write_text(json.dumps({"key": "0" * 16, "files": {}})),
        r"\.json' is the manifest of another cell",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cell_is_named_and_measured_again(evaluate, watched, tmp_path, caplog, kind):
    records, _ = evaluate(**ONE).run()
    whole, calls = content(records), len(watched.calls)
    first = {
        path: pq.read_table(path).slice(0, 1).to_pylist()[0] for path in (tmp_path / "run" / "cells").glob("*.parquet")
    }
    (path,) = [p for p, row in first.items() if row["system"] == "detector" and row["attack"] != "clean"]
    damage, message = DAMAGE[kind]
    damage(path)
    records, _ = evaluate(**ONE).run()
    assert len(watched.calls) == calls + 3, "one of the cells, in three batches"
    assert content(records) == whole
    assert [told for told in caplog.messages if re.search(message, told)]
    assert kind == "gone" or path.with_name(f"{path.name}.damaged-1").exists()
    evaluate(**ONE).run()
    assert len(watched.calls) == calls + 3, "it is found again"


def test_records_without_a_manifest_are_those_of_a_killed_run(evaluate, watched, tmp_path, caplog):
    evaluate(**ONE).run()
    calls = len(watched.calls)
    for path in (tmp_path / "run" / "cells").glob("*.json"):
        path.unlink()
    evaluate(**ONE).run()
    assert len(watched.calls) == 2 * calls
    assert "damaged" not in caplog.text


def test_a_damaged_batch_is_attacked_again(tmp_path, caplog):
    parts, index = Parts(tmp_path / "cell"), np.arange(40)
    parts.keep({"label": index, "index": index})
    (path,) = (tmp_path / "cell").iterdir()
    whole, damaged = path.read_bytes(), 0
    for at in range(0, len(whole), 11):  # bytes that say nothing, such as dates, may be any
        path.write_bytes(whole)
        flip(path, at)
        found = parts.finished()
        assert all((part["label"] == part["index"]).all() for part in found.parts)
        assert found.index.tolist() in ([], index.tolist())
        damaged += not found.parts
    assert damaged > len(whole) / 11 / 2
    assert f"kept as {path.name}.damaged-{damaged} and made again" in caplog.text


def test_batches_of_other_samples_than_the_file_says_are_set_aside(tmp_path, caplog):
    parts, index = Parts(tmp_path / "cell"), np.arange(4)
    parts.keep({"label": index, "index": index})
    (path,) = (tmp_path / "cell").iterdir()
    for wrong in (
        {"index": index[:3], "label": index[:3], "seconds": 0.0},  # of other samples
        {"index": index, "label": index[:3], "seconds": 0.0},  # cut short
        {"index": index, "label": index},  # without its seconds
        {"label": index, "seconds": 0.0},
    ):
        np.savez(path, **wrong)
        assert parts.finished().parts == []
        assert not path.exists()
    assert caplog.text.count("holds other samples") == 4
    path.write_bytes(b"")
    assert parts.finished().parts == []


def test_two_runs_at_once_measure_each_cell_once(evaluate, watched, monkeypatch):
    """The second waits within the first one's attack; then it finds the cell, and nobody clears the other's batches."""
    one, two = evaluate("one", cells="shared", **ONE), evaluate("two", cells="shared", **ONE)
    attacking, waiting, errors = threading.Event(), threading.Event(), []
    attack = watched.__call__

    def held(self, *args, **kwargs):
        attacking.set()
        assert waiting.wait(30), "the second run did not wait"
        return attack(self, *args, **kwargs)

    class Told(logging.Handler):
        def emit(self, record):
            if "which another run is making" in record.getMessage():
                waiting.set()

    monkeypatch.setattr(watched, "__call__", held)
    handler = Told()
    logging.getLogger("robustforge.training.locks").addHandler(handler)

    def first():
        try:
            one.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert attacking.wait(30)
        records, _ = two.run()
    finally:
        thread.join()
        logging.getLogger("robustforge.training.locks").removeHandler(handler)
    assert not errors
    assert len(watched.calls) == 6, "two cells of three batches, each attacked once"
    assert content(records) == content(one.folder / "records.parquet")
    assert not list((one.cells / ".partial").glob("*/*.npz"))


def test_records_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "records.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DamagedError, match="records.parquet' cannot be read as parquet"):
        read_table(tmp_path)
