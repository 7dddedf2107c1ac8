"""Archives that lie are refused before memory is taken for what they promise."""

import io
import resource
import zipfile

import numpy as np
import pytest

from robustforge.data.archives import NAMES, read_npz
from robustforge.files import read_arrays, write_arrays
from robustforge.types import DamagedError, UserError

HUGE = 10**12


@pytest.fixture
def allocated(monkeypatch):
    """What NumPy is asked to read; reading is what takes memory."""
    calls = []
    read = np.lib.format.read_array
    monkeypatch.setattr(np.lib.format, "read_array", lambda file, **how: calls.append(file) or read(file, **how))
    return calls


def member(shape, data=b"", descr="|u1"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue() + data


def archive(path, *more, names=NAMES, kind=zipfile.ZIP_STORED, first=None):
    with zipfile.ZipFile(path, "w", kind) as made:
        for name in names:
            made.writestr(f"{name}.npy", first if first is not None and name == "x_train" else member((3,), b"abc"))
        for name in more:
            made.writestr(name, b"mine")
    return path


READERS = [read_npz, read_arrays]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_promises_too_much(tmp_path, allocated, read, kind):
    path = archive(tmp_path / "a.npz", first=member((HUGE,), b"abc"), kind=kind)
    with pytest.raises(UserError, match=r"a.npz' is .*the header of x_train.npy promises shape \[1000000000000\]"):
        read(path)
    assert not allocated


@pytest.mark.parametrize("read", READERS)
def test_a_directory_that_promises_too_much(tmp_path, allocated, read):
    """The zip's own directory lies too, in agreement with the header."""
    path = archive(tmp_path / "a.npz", first=member((2**31 - 200,), b"abc"))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")  # the first entry of the directory: x_train
    content[place + 24 : place + 28] = (len(member((2**31 - 200,))) + 2**31 - 200).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a.npz' is .*x_train.npy promises more than the file can hold"):
        read(path)
    assert not allocated


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["../x.npy", "/etc/x.npy", "a/../../x.npy", "..\\x.npy", "C:\\x.npy"])
def test_members_that_lead_elsewhere(tmp_path, read, name):
    with pytest.raises(UserError, match=r"a.npz' holds .*, a name that leads elsewhere: it is not opened"):
        read(archive(tmp_path / "a.npz", name))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.npz"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("read", READERS)
def test_members_that_are_there_twice(tmp_path, read):
    with pytest.raises(UserError, match="a.npz' holds two arrays named y_test"):
        read(archive(tmp_path / "a.npz", "y_test.npy"))


def test_what_does_not_fit_in_memory(tmp_path, monkeypatch, allocated):
    path = archive(tmp_path / "a.npz")
    monkeypatch.setattr("robustforge.npz.os.sysconf", lambda _: 1)
    with pytest.raises(UserError, match=r"a.npz' does not fit in memory .*: save it uncompressed"):
        read_npz(path)
    assert not allocated


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b[: len(b) // 2], lambda _: b"", lambda b: b[::-1]])
def test_damaged_arrays_are_named(tmp_path, damage):
    write_arrays(tmp_path / "a.npz", x=np.arange(9))
    (tmp_path / "a.npz").write_bytes(damage((tmp_path / "a.npz").read_bytes()))
    with pytest.raises(DamagedError, match="a.npz' is damaged"):
        read_arrays(tmp_path / "a.npz")


def test_memory_stays_bounded(tmp_path):
    """A bomb of a thousandfold, honest in every header, is what it says; one that lies takes nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lying = archive(tmp_path / "a.npz", first=member((HUGE,), bytes(1 << 20)), kind=zipfile.ZIP_DEFLATED)
    for read in READERS:
        with pytest.raises(UserError):
            read(lying)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024, "KiB"
