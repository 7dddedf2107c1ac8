"""Image files decoded by several processes: the same array as by one, in order, and the same sentences."""

import errno
import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image

from robustforge.data import decoding
from robustforge.data.folders import decode_all
from robustforge.data.image_files import decode
from robustforge.types import UserError

SHAPE = (3, 6, 6)


@pytest.fixture
def files(tmp_path):
    """50 images, each of another color and size."""
    made = [tmp_path / f"{number:02}.png" for number in range(50)]
    for number, path in enumerate(made):
        Image.new("RGB", (8 + number % 3, 8), (number, 255 - number, 7)).save(path)
    return made


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def cores(request, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(request.param)), raising=False)
    monkeypatch.setattr(decoding, "CHUNK", 4)
    return request.param


def test_the_array_is_that_of_one_file_after_the_other(files, tmp_path, cores):
    before = torch.get_rng_state()
    found = decode_all(files, SHAPE, tmp_path / "cache")
    assert np.array_equal(found, np.stack([decode(path, SHAPE)[0] for path in files]))
    assert torch.equal(torch.get_rng_state(), before), "weights would depend on whether the images were decoded before"
    assert not multiprocessing.active_children()


def test_the_first_file_that_cannot_be_read_is_named(files, tmp_path, cores):
    for number in (47, 21, 22):
        files[number].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"21.png' is not a readable image"):
        decode_all(files, SHAPE, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    assert not multiprocessing.active_children()


def test_a_full_disk_is_said_before_anything_is_decoded(files, tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(decoding, "reserve", full)
    monkeypatch.setattr(decoding, "decode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(UserError, match=r"cache' cannot be written .*No space left on device"):
        decode_all(files, SHAPE, tmp_path / "cache")
