"""Files of strangers that promise much: one sentence with the file's name, in a process that may not take memory. Slow."""

import io
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustforge.config.isolated import clean_environment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux counts them")]
ROOM = 400 << 20  # bytes beside what the imports take
CHILD = f"""
import re, resource, sys
from robustforge.cli import pipeline
from robustforge.cli.train import main
status = open("/proc/self/status").read()
for limit, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
    taken = int(re.search(name + r":\\s+(\\d+) kB", status)[1]) << 10
    resource.setrlimit(limit, (taken + {ROOM}, taken + {ROOM}))
try:
    bytearray({ROOM} + (1 << 20))
    sys.exit("there is no limit")
except MemoryError:
    main()
"""


def refused(tmp_path, *arguments):
    """What ``train.py`` says on stderr."""
    tiny = (
        "defense=none",
        "model=lenet",
        "debug=fast",
        "dataset.num_classes=2",
        f"paths.output_dir={tmp_path / 'out'}",
    )
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *tiny, *arguments], cwd=ROOT, env={**clean_environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "out").rglob("*.json"))
    return done.stderr


def header(shape):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue()


@pytest.mark.parametrize("kind", ["lying", "bomb"])
def test_an_archive(tmp_path, kind):
    """A header that promises a terabyte and has none; and one that keeps its promise, of a thousand times its size."""
    path, side = tmp_path / "of_a_stranger.npz", 1 << 15
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", header((2,)) + b"\0\1")
        with archive.open("x_train.npy", "w", force_zip64=True) as member:
            member.write(header((1 << 30, 32, 32) if kind == "lying" else (side, 160, 160)))
            for _ in range(1 if kind == "lying" else side // 1024):
                member.write(bytes(160 * 160 * 1024))
    said = refused(tmp_path, "dataset=npz", f"dataset.path={path}", "dataset.shape=[1,160,160]")
    assert str(path) in said
    assert ("promises" if kind == "lying" else "does not fit in memory") in said


def test_an_image(tmp_path):
    """400 million pixels in a PNG of 400 kB, whole and correct."""
    side, pack = 20_000, zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(side + 1)) for _ in range(side)) + pack.flush()
    for part in ("train", "val"):
        for name in ("ape", "bee"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            Image.new("L", (28, 28)).save(tmp_path / "images" / part / name / "0.png")
    path = tmp_path / "images" / "train" / "bee" / "bomb.png"
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert path.stat().st_size < 1 << 20
    said = refused(tmp_path, "dataset=imagefolder", f"dataset.path={tmp_path / 'images'}", "dataset.shape=[1,28,28]")
    assert f"'{path}' has too many pixels" in said
