"""Folders of image files: classes, files that are no images, and every depth on its own scale."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from robustforge.data.image_files import decode
from robustforge.data.sources import load_arrays
from robustforge.types import UserError


def load(path, **changed):
    arguments = {"kind": "imagefolder", "shape": (3, 6, 6), "num_classes": 2}
    return load_arrays("mine", data_dir=None, download=False, path=path, **{**arguments, **changed})


def write_image(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def make_folder(root):
    for part, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("ape", "bee")):
            for i in range(count):
                write_image(root / part / name / f"{i}.png", 100 * label + i, (12, 20) if i else (8, 8))
    return root


def test_image_folder_resizes_numbers_classes_and_caches(tmp_path):
    root = make_folder(tmp_path / "own")
    found = load(root, kind="imagefolder", num_classes=2, shape=(3, 6, 6))
    assert found.x_train.shape == (6, 3, 6, 6)
    assert found.x_train[:, 0, 3, 3].tolist() == [0, 1, 2, 100, 101, 102]
    assert found.y_test.tolist() == [0, 0, 1, 1]
    cached = sorted((root / ".robustforge-cache").iterdir())
    assert len(cached) == 2
    times = [path.stat().st_mtime_ns for path in cached]
    load(root, kind="imagefolder", num_classes=2, shape=(3, 6, 6))
    assert [path.stat().st_mtime_ns for path in cached] == times
    assert load(root, kind="imagefolder", num_classes=2, shape=(1, 6, 6)).x_train.shape == (6, 1, 6, 6)
    write_image(root / "train" / "bee" / "9.png", 9)
    assert len(load(root, kind="imagefolder", num_classes=2, shape=(3, 6, 6)).x_train) == 7


def test_image_folder_messages(tmp_path):
    with pytest.raises(UserError, match=r"train' does not exist: set dataset.path"):
        load(tmp_path / "none", kind="imagefolder")
    root = make_folder(tmp_path / "own")
    with pytest.raises(UserError, match="1 or 3 channels"):
        load(root, kind="imagefolder", shape=(4, 6, 6))
    (root / "train" / "ape" / "0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0.png' is not a readable image"):
        load(root, kind="imagefolder", shape=(3, 6, 6))
    assert not any((root / ".robustforge-cache").iterdir())
    write_image(root / "val" / "cat" / "0.png", 1)
    with pytest.raises(UserError, match=r"cat' has no folder of that name"):
        load(root, kind="imagefolder", shape=(3, 6, 6))


def test_coil100_folder_tests_every_fourth_view(tmp_path):
    for number in (1, 2):
        for angle in range(0, 60, 5):
            write_image(tmp_path / "coil-100" / f"obj{number}__{angle}.png", number * 60 + angle)
    found = load_arrays("coil100", "coil100", tmp_path, False, (3, 4, 4), 100)
    assert found.x_test[:, 0, 0, 0].tolist() == [60, 80, 100, 120, 140, 160]
    assert found.y_test.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(found.x_train) == 18
    with pytest.raises(UserError, match="unpack COIL-100"):
        load_arrays("coil100", "coil100", tmp_path / "none", False, (3, 4, 4), 100)


# --- what is ignored, and what is not ---------------------------------------------------------------------------------


def test_hidden_and_system_entries_are_ignored_and_said(tmp_path, caplog):
    caplog.set_level("INFO")
    root = make_folder(tmp_path / "own")
    for part in ("train", "val"):
        write_image(root / part / ".ipynb_checkpoints" / "0-checkpoint.png", 7)
        write_image(root / part / "__MACOSX" / "ape" / "0.png", 7)
        write_image(root / part / "ape" / ".ipynb_checkpoints" / "0-checkpoint.png", 7)
        (root / part / "ape" / "._0.png").write_bytes(b"no image")
        (root / part / "bee" / "Thumbs.db").write_bytes(b"no image")
        (root / part / ".DS_Store").write_bytes(b"no image")
    found = load(root)
    assert found.y_train.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.y_test.tolist() == [0, 0, 1, 1]
    assert found.x_train[:, 0, 3, 3].tolist() == [0, 1, 2, 100, 101, 102]
    for part, names in (("train", ".DS_Store, ._0.png, .ipynb_checkpoints, Thumbs.db, __MACOSX"), ("val", ".DS_Store")):
        assert f"{part}': hidden and system entries are ignored ({names}" in caplog.text


def test_files_that_are_no_images_get_a_warning(tmp_path, caplog):
    root = make_folder(tmp_path / "own")
    (root / "train" / "ape" / "README.txt").write_text("apes")
    write_image(root / "train" / "loose.png", 7)
    assert len(load(root).x_train) == 6
    assert "train': 2 files are ignored, which are no images or lie in no class folder" in caplog.text
    assert "train/loose.png" in caplog.text


@pytest.mark.parametrize("name", ["0.gif", "0.jfif", "0.HEIC", "0.npy"])
def test_images_of_other_formats_are_not_left_out_silently(tmp_path, name):
    root = make_folder(tmp_path / "own")
    (root / "train" / "bee" / name).write_bytes(b"any")
    with pytest.raises(UserError, match=f"bee/{name}' is of a format that is not read here: convert it to PNG"):
        load(root)


@pytest.mark.parametrize("part", ["train", "val"])
def test_empty_class_folders_are_named(tmp_path, part):
    root = make_folder(tmp_path / "own")
    (root / part / "ape" / ".hidden").mkdir()
    for path in (root / part / "ape").glob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match=f"{part}/ape' holds no images: put some there, or delete the folder"):
        load(root)


def test_classes_that_are_not_tested_keep_their_numbers(tmp_path):
    root = make_folder(tmp_path / "own")
    for path in (root / "val" / "ape").iterdir():
        path.unlink()
    (root / "val" / "ape").rmdir()
    assert load(root).y_test.tolist() == [1, 1]


def test_no_class_folders(tmp_path):
    for part in ("train", "val"):
        write_image(tmp_path / part / "0.png", 7)
    with pytest.raises(UserError, match=r"train' holds no images in class folders: put them at train/<class>/"):
        load(tmp_path)


# --- depths and modes -------------------------------------------------------------------------------------------------

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
LEVELS = np.rint(RAMP * 255).astype(np.uint8)


def png16(path, array):
    """A PNG of 16 bits, gray (H, W) or color (H, W, 3), which Pillow cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, 0 if array.ndim == 2 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def sixteen(peak=65535):
    return np.rint(RAMP * peak).astype(np.uint16)


def make(path, kind):
    gray = Image.fromarray(LEVELS)
    if kind == "png16":
        png16(path, sixteen())
    elif kind == "png16 color":
        png16(path, np.stack([sixteen()] * 3, -1))
    elif kind == "tiff16":
        Image.fromarray(sixteen()).save(path, "TIFF")
    elif kind == "tiff float":
        Image.fromarray(RAMP.astype(np.float32)).save(path, "TIFF")
    elif kind == "pgm16":
        path.write_bytes(b"P5 8 8 65535\n" + sixteen().astype(">u2").tobytes())
    elif kind == "pgm12":
        path.write_bytes(b"P5 8 8 4095\n" + sixteen(4095).astype(">u2").tobytes())
    elif kind == "opaque":
        Image.merge("LA", (gray, Image.new("L", (8, 8), 255))).save(path, "PNG")
    elif kind == "palette":
        gray.convert("P").save(path, "PNG")
    elif kind == "cmyk":
        gray.convert("RGB").convert("CMYK").save(path, "TIFF")
    else:
        gray.convert(kind).save(path, "PNG")
    return path


@pytest.mark.parametrize(
    "kind",
    ["png16", "png16 color", "tiff16", "tiff float", "pgm16", "pgm12", "opaque", "palette", "cmyk", "L", "RGB", "RGBA"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_depth_is_scaled_by_its_own_white(tmp_path, kind, channels):
    found, deep = decode(make(tmp_path / "0.png", kind), (channels, 8, 8))
    assert found.dtype == np.uint8
    assert found.shape == (channels, 8, 8)
    assert np.abs(found.astype(int) - LEVELS).max() <= (kind == "png16 color" or "12" in kind)
    assert deep == any(word in kind for word in ("16", "12", "float"))


def test_binary_images_are_black_and_white(tmp_path):
    Image.fromarray(LEVELS > 100).save(tmp_path / "0.png")
    found, _ = decode(tmp_path / "0.png", (1, 8, 8))
    assert np.array_equal(found[0], (LEVELS > 100) * 255)


def test_rounded_depths_are_said_once(tmp_path, caplog):
    root = make_folder(tmp_path / "own")
    for name in "ab":
        png16(root / "train" / "ape" / f"{name}.png", sixteen())
    assert load(root).x_train.max() > 240
    assert "2 images have more than 8 bits a channel and are rounded to 8" in caplog.text
    assert "ape/a.png" in caplog.text


def frames(path):
    first, second = Image.new("RGB", (8, 8), 1), Image.new("RGB", (8, 8), 200)
    first.save(path, "TIFF", save_all=True, append_images=[second])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: Image.fromarray((RAMP * 255).astype(np.float32)).save(path, "TIFF"), "from 0 to 255 whose white"),
        (
            lambda path: Image.fromarray((RAMP * 2 - 1).astype(np.float32)).save(path, "TIFF"),
            "from -1 to 1 whose white",
        ),
        (lambda path: Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(path, "TIFF"), "from nan to nan"),
        (lambda path: Image.fromarray(LEVELS.astype(np.int32)).save(path, "TIFF"), "from 0 to 255 whose white"),
        (lambda path: Image.new("RGBA", (8, 8), (9, 9, 9, 20)).save(path, "PNG"), "has transparent pixels: lay it on"),
        (lambda path: Image.new("LA", (8, 8), (9, 20)).save(path, "PNG"), "has transparent pixels"),
        (lambda path: Image.new("P", (8, 8)).save(path, "PNG", transparency=0), "has transparent pixels"),
        (frames, "holds several frames: save the one"),
        (lambda path: path.write_bytes(b""), "is not a readable image"),
    ],
    ids=range(9),
)
def test_images_that_are_refused_are_named(tmp_path, write, message):
    write(tmp_path / "0.png")
    with pytest.raises(UserError, match=f"0.png' .*{message}"):
        decode(tmp_path / "0.png", (3, 8, 8))


def test_decompression_bombs_are_named(tmp_path, monkeypatch):
    Image.new("L", (8, 8)).save(tmp_path / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"0.png' has too many pixels \(.*: make it smaller"):
        decode(tmp_path / "0.png", (3, 8, 8))


def test_truncated_files_are_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "0.png")
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="0.png' is not a readable image"):
        decode(tmp_path / "0.png", (3, 8, 8))


def test_coil100_needs_views_of_both_kinds(tmp_path):
    for angle in (0, 20):
        write_image(tmp_path / f"obj1__{angle}.png", angle)
    with pytest.raises(UserError, match="holds no train views of COIL-100"):
        load(tmp_path, kind="coil100", num_classes=100)
