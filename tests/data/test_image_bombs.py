"""Image files of strangers: refused by their header, before a pixel is decoded."""

import gzip
import zlib

import numpy as np
import pytest
from PIL import Image

from robustforge.data.folders import decode_all
from robustforge.data.image_files import decode
from robustforge.data.sources import load_arrays
from robustforge.data.torchvision_sources import MOST
from robustforge.types import UserError


def test_an_image_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    """A PNG of a hundred bytes that claims 60,000 x 60,000 pixels, and one just above our own limit."""
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    whole = bytearray((tmp_path / "0.png").read_bytes())
    for width, height in ((60_000, 60_000), (8193, 8192)):
        chunk = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes(whole[24:29])
        lying = bytes(whole[:12]) + chunk + zlib.crc32(chunk).to_bytes(4, "big") + bytes(whole[33:])
        (tmp_path / "0.png").write_bytes(lying)
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
            with pytest.raises(UserError, match=r"0.png' has too many pixels"):
                decode(tmp_path / "0.png", (3, 8, 8))


def test_a_damaged_cache_is_decoded_again(tmp_path, caplog):
    Image.new("L", (8, 8), 200).save(tmp_path / "0.png")
    cache = tmp_path / ".cache"
    first = np.array(decode_all([tmp_path / "0.png"], (1, 8, 8), cache))
    (made,) = cache.iterdir()
    made.write_bytes(made.read_bytes()[:-20])
    assert np.array_equal(decode_all([tmp_path / "0.png"], (1, 8, 8), cache), first)
    assert "is cut short or damaged" in caplog.text


def test_a_gzip_bomb_is_read_no_further_than_it_promises(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, shape in (("train-images-idx3", (3, 28, 28)), ("train-labels-idx1", (3,)), ("t10k-images-idx3", (3, 28, 28)),
                        ("t10k-labels-idx1", (3,))):  # fmt: skip
        header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
        with gzip.open(raw / f"{name}-ubyte.gz", "wb") as file:
            file.write(header + bytes(20_000_000))
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size))
    with pytest.raises(UserError, match="truncated or damaged"):
        load_arrays("mnist", "torchvision", tmp_path, False, (1, 28, 28), 10)
    assert max(asked) <= 3 * 28 * 28 + 1
    assert min(asked) > 0
    with gzip.open(raw / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 1]) + (MOST + 1).to_bytes(4, "big"))
    with pytest.raises(UserError, match="its header promises shape"):
        load_arrays("mnist", "torchvision", tmp_path, False, (1, 28, 28), 10)
