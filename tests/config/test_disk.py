"""What the file system refuses is one sentence; names are quoted, kept short, and leftovers of the dead removed."""

import errno
import os
import resource
import socket
import subprocess
import sys

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from robustforge.cli import pipeline
from robustforge.cli.replacing import replacing
from robustforge.config.disk import refused
from robustforge.config.isolated import quoted, run_dir
from robustforge.files import atomic_write, reserve, short_name
from robustforge.leftovers import remove_leftovers


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system", "/a/b"),
        OSError(errno.ENAMETOOLONG, "File name too long", "/a/" + "b" * 300),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["full", "read-only", "long", "from Rust"],
)
def test_a_refusal_is_one_sentence_and_exit_code_2(command, tmp_path, monkeypatch, error):
    def train(*_):
        raise error

    monkeypatch.setattr(pipeline, "train", train)
    answer = command("defense=none", f"paths.output_dir={tmp_path}")
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    assert line.startswith("Error: ")
    assert "the same command then continues" in line
    assert str(getattr(error, "filename", None) or "A file") in line


def test_other_errors_stay_bugs():
    assert refused(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    assert refused(ValueError("x")) is None
    with pytest.raises(RuntimeError) as behind:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise RuntimeError("while saving") from error
    assert "free some space" in str(refused(behind.value))


def test_room_is_promised_before_a_file_is_mapped(tmp_path):
    path = tmp_path / "images.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype="<f4", shape=(1000, 1000)).flush()
    assert path.stat().st_blocks * 512 < 4_000_000, "this file system makes no holes: nothing to test here"
    reserve(path)
    assert path.stat().st_blocks * 512 >= 4_000_000


def test_a_full_disk_in_crafting_is_an_error_and_no_signal(tmp_path):
    """The limit of a file's size stands for a full disk: it needs no file system of its own."""
    text = (
        "import resource, pathlib, sys\n"
        "from robustforge.data.adversarial_set import begin_images\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "try:\n    begin_images(pathlib.Path(sys.argv[1]), (100, 1, 28, 28))\n"
        "except OSError as error:\n    from robustforge.config.disk import refused\n    print(refused(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot be read or written (File too large)" in done.stdout) == (0, True), done
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


NAMES = [
    "plain", "it's", 'a"b', "a=b,c", "a b", "é", "${x}", "\\${x}", "back\\slash", "trailing\\", "tr\\\\", "{}", "[x]", "'",
    "\\'", "~t", "a:b", "#h", "$x", "${", "\\\\${q}", "null", "1", "a\nb", "(x)", "100%",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(name):
    parsed = OverridesParser.create().parse_override(f"place={quoted(name)}")
    assert OmegaConf.create({"place": parsed.value()}).place == name
    assert run_dir(name) == f"hydra.run.dir={quoted(name)}"


def test_long_names_are_cut_and_kept_apart():
    long = "x" * 300
    assert short_name("short") == "short"
    assert len(short_name(long)) == 129
    assert short_name(long) != short_name(long + "y")
    assert len(short_name("é" * 300).encode()) <= 129


def test_what_the_dead_left_is_removed_and_what_others_write_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with atomic_write(tmp_path / "cells" / "one.json") as mine:
        mine.touch()
        own = f"{socket.gethostname()[:64]}-{os.getpid()}-"
        assert own in mine.name
        of_dead = mine.with_name(mine.name.replace(own, f"{socket.gethostname()[:64]}-{dead.pid}-"))
        elsewhere = mine.with_name(mine.name.replace(own, f"other-machine-{dead.pid}-"))
        file = mine.with_name(".mine.tmp")
        for path in (of_dead, elsewhere, file):
            path.touch()
        assert remove_leftovers(tmp_path) == 1
        assert (mine.exists(), of_dead.exists(), elsewhere.exists(), file.exists()) == (True, False, True, True)


def test_the_old_result_is_there_until_the_new_one_is(tmp_path):
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(RuntimeError), replacing(folder, True) as fresh:
        fresh.mkdir()
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["old"]
    with replacing(folder, True) as fresh:
        assert not fresh.exists()
        fresh.mkdir()
        (fresh / "new").touch()
        assert (folder / "old").exists()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    os.replace(folder, tmp_path / ".result.old")  # killed between the two renames
    with replacing(folder, False) as same:
        assert same == folder
        assert (folder / "new").exists()
