"""Files that are written whole or not at all, plain JSON, and hashes of content."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from robustforge import files
from robustforge.files import atomic_write, plain, read_arrays, sha256_of, write_arrays, write_json, write_text


def test_json_is_atomic(tmp_path, monkeypatch):
    path = write_json(tmp_path / "deep" / "result.json", {"schema": 1, "old": True})
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"schema": 1, "old": False})
    assert json.loads(path.read_text())["old"] is True
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "deep" / "file.txt", "old\n")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("half")
        assert path.read_text() == "old\n", "a reader sees the old file while the new one is written"
        raise RuntimeError
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@dataclass
class Point:
    x: float
    where: Path


def test_plain_data_is_what_json_can_hold():
    given = {
        1: np.float32(0.5),
        "array": np.arange(2),
        "point": Point(math.nan, Path("a")),
        "all": (True, None, -math.inf),
    }
    assert plain(given) == {"1": 0.5, "array": [0, 1], "point": {"x": None, "where": "a"}, "all": [True, None, None]}
    assert json.loads(json.dumps(plain(given), allow_nan=False)) == plain(given)


def test_arrays_come_back_and_pickles_do_not(tmp_path):
    write_arrays(tmp_path / "deep" / "a.npz", first=np.arange(3), second=np.ones((2, 2)))
    found = read_arrays(tmp_path / "deep" / "a.npz")
    assert found["first"].tolist() == [0, 1, 2]
    assert found["second"].shape == (2, 2)
    assert read_arrays(tmp_path / "none.npz") is None
    np.savez(tmp_path / "pickled.npz", bad=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(tmp_path / "pickled.npz")


def test_hashes_tell_content_and_names(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        write_text(folder / "sub" / "a.txt", "content")
    assert sha256_of(one / "sub" / "a.txt") == hashlib.sha256(b"content").hexdigest()
    assert sha256_of(one) == sha256_of(two)
    (two / "sub" / "a.txt").rename(two / "sub" / "b.txt")
    assert sha256_of(one) != sha256_of(two)
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "none")
