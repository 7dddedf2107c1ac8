"""Each source on generated files, and each message."""

import gzip
import hashlib
import pickle
import struct
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from robustforge.data import torchvision_sources
from robustforge.data.archives import read_npz
from robustforge.data.integrity import as_pixels, fingerprint
from robustforge.data.sources import data_root, digits, load_arrays
from robustforge.files import atomic_write
from robustforge.types import UserError

RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def labels(count, classes=10):
    return (np.arange(count) % classes).astype(np.uint8)


def save(path, x_train=None, **changed):
    arrays = {
        "x_train": pixels(12, 5, 4, 3) if x_train is None else x_train,
        "y_train": labels(12),
        "x_test": pixels(6, 5, 4, 3),
        "y_test": labels(6),
    }
    arrays.update(changed)
    np.savez(path, **arrays)
    return arrays


def load(path, **changed):
    arguments = {
        "name": "mine",
        "kind": "npz",
        "data_dir": None,
        "download": False,
        "shape": (3, 5, 4),
        "num_classes": 10,
    }
    return load_arrays(**{**arguments, "path": path, **changed})


# --- npz -------------------------------------------------------------------------------------------------------------


def test_npz_layouts_give_the_same_pixels(tmp_path):
    x = pixels(12, 5, 4, 3)
    for number, form in enumerate((x, x.transpose(0, 3, 1, 2), (x / 255).astype(np.float32), x / 255.0)):
        save(tmp_path / f"{number}.npz", form)
        found = load(tmp_path / f"{number}.npz")
        assert found.x_train.dtype == np.uint8
        assert np.array_equal(found.x_train, x.transpose(0, 3, 1, 2))
        assert found.y_train.dtype == np.int64
        assert found.y_train.tolist() == labels(12).tolist()


def test_npz_gray_without_channel_and_column_labels(tmp_path):
    arrays = save(tmp_path / "a.npz", pixels(12, 5, 4), x_test=pixels(6, 5, 4), y_train=labels(12)[:, None])
    found = load(tmp_path / "a.npz", shape=(1, 5, 4))
    assert np.array_equal(found.x_train[:, 0], arrays["x_train"])
    assert found.y_train.shape == (12,)


def test_ambiguous_layout_is_channels_first():
    x = pixels(2, 3, 3, 3)
    assert np.array_equal(as_pixels(x, (3, 3, 3), "x"), x)


def test_large_arrays_are_mapped_and_the_file_is_never_changed(tmp_path):
    arrays = save(tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()
    found = read_npz(tmp_path / "a.npz", map_from_bytes=1)
    assert isinstance(found["x_train"], np.memmap)
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    found["x_train"][:] = 0
    assert (tmp_path / "a.npz").read_bytes() == before


def test_named_archive_goes_first_and_environment_names_the_folder(tmp_path, monkeypatch):
    save(tmp_path / "cifar10.npz", pixels(12, 32, 32, 3), x_test=pixels(6, 32, 32, 3))
    monkeypatch.setenv("ROBUSTFORGE_DATA", str(tmp_path))
    found = load_arrays("cifar10", "torchvision", "", False, (3, 32, 32), 10)
    assert found.x_train.shape == (12, 3, 32, 32)
    monkeypatch.delenv("ROBUSTFORGE_DATA")
    assert str(data_root(None)) == "data"


@pytest.mark.parametrize(
    ("changed", "arguments", "message"),
    [
        ({}, {"shape": (1, 28, 28)}, r"x_train of '.*a.npz' holds images of shape \[5, 4, 3\].*set dataset.shape"),
        ({}, {"num_classes": 5}, "labels from 0 to 9 where dataset.num_classes is 5: set dataset.num_classes=10"),
        ({"y_train": labels(12) - np.int64(1)}, {}, "labels from -1 to 8"),
        ({"y_test": labels(6) + 0.5}, {}, "y_test of .* is of type float64 .* not whole: store labels as integers"),
        ({"y_train": np.eye(12, dtype=int)}, {}, "store one label for each image"),
        ({"y_train": labels(11)}, {}, "for 12 images"),
        ({"x_train": pixels(12, 5, 4, 3).astype(np.int32) * 9}, {}, "int32 with values from 0 to .*: store pixels"),
        ({"x_train": pixels(12, 5, 4, 3).astype(float)}, {}, "divide by 255"),
        ({"x_train": np.full((12, 5, 4, 3), np.nan)}, {}, "NaN or infinite pixels"),
        (
            {"x_test": pixels(0, 5, 4, 3), "y_test": labels(0)},
            {},
            r"x_test of .* shape \[0, 5, 4, 3\], which is no image",
        ),
        ({"x_train": pixels(0, 5, 4, 3), "y_train": labels(0)}, {}, "x_train of .* no image"),
        (
            {"x_test": pixels(6, 5, 4)},
            {},
            r"images of shape \[5, 4\] .*: set dataset.shape=\[1,5,4\], or repeat the gray",
        ),
        ({}, {"shape": (1, 5, 4)}, r"images of shape \[5, 4, 3\] .*: set dataset.shape=\[3,5,4\], or make .* gray"),
        ({}, {"shape": (3, 4, 5)}, r": set dataset.shape=\[3,5,4\], or resize"),
        ({"x_train": pixels(12, 5, 8, 6)}, {}, r": set dataset.shape=\[5,8,6\], or resize"),
        ({"x_train": pixels(12, 60)}, {}, r"images of shape \[60\] .*: store them as \(N, C, H, W\), with x.reshape"),
        ({"x_train": pixels(12, 1, 5, 4, 3)}, {}, r": store them as \(N, C, H, W\)\."),
        ({}, {"sha256": "0" * 64}, "has sha256 [0-9a-f]{64} where dataset.sha256 says 0000"),
        ({}, {"kind": "zip"}, "dataset.kind is 'zip': choose one of digits"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, changed, arguments, message):
    save(tmp_path / "a.npz", **changed)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.npz", **arguments)


def test_adversarial_images_come_back_as_they_were_saved(tmp_path):
    adversarial = (pixels(6, 5, 4, 3) / 255 * 0.9 + 0.01).astype(np.float32)
    save(tmp_path / "a.npz", x_test=adversarial)
    found = load(tmp_path / "a.npz")
    assert found.x_train.dtype == np.uint8
    assert found.x_test.dtype == np.float32
    assert np.array_equal(found.x_test, adversarial.transpose(0, 3, 1, 2))


def test_python_objects_are_never_loaded(tmp_path):
    ragged = np.empty(12, object)
    ragged[:] = [pixels(n + 1, 4, 3) for n in range(12)]
    save(tmp_path / "a.npz", y_train=labels(12).astype(object))
    with pytest.raises(
        UserError, match=r"^y_train of '.*a.npz' holds pickled Python objects.*: store one array of numb"
    ):
        load(tmp_path / "a.npz")
    save(tmp_path / "a.npz", ragged)
    with pytest.raises(UserError, match=r"^x_train of '.*a.npz' holds pickled Python objects.*np.stack"):
        load(tmp_path / "a.npz")


def lying_archive(path, shape, compression=zipfile.ZIP_STORED):
    """x_train's header promises ``shape``; its data are 12 images."""
    arrays = save(path)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape if name == "x_train" else array.shape}
                np.lib.format.write_array_header_1_0(member, header)
                member.write(array.tobytes())


@pytest.mark.parametrize("shape", [(12, 5, 4, 2), (13, 5, 4, 3), (10**12, 5, 4, 3)])
@pytest.mark.parametrize("mapped_from", [1, 1 << 30])
def test_headers_that_lie_about_the_size(tmp_path, shape, mapped_from):
    lying_archive(tmp_path / "a.npz", shape)
    with pytest.raises(UserError, match=r"a.npz' is truncated or damaged \(the header of x_train.npy promises"):
        read_npz(tmp_path / "a.npz", map_from_bytes=mapped_from)


def test_other_things_than_archives(tmp_path):
    with pytest.raises(UserError, match="is a folder: use dataset=imagefolder"):
        load(tmp_path)
    np.save(tmp_path / "one.npy", pixels(3, 4))
    with pytest.raises(UserError, match="one.npy' holds a single array: save all four"):
        load(tmp_path / "one.npy")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match="text.npz' is truncated or damaged"):
        load(tmp_path / "text.npz")


def test_an_archive_larger_than_the_memory_names_the_way_out(tmp_path, monkeypatch):
    save(tmp_path / "a.npz")

    def full(*_, **__):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(np.lib.format, "read_array", full)
    with pytest.raises(UserError, match=r"a.npz' does not fit in memory \(Unable .*: save it uncompressed"):
        load(tmp_path / "a.npz")


def test_missing_truncated_and_unknown_archives(tmp_path):
    with pytest.raises(UserError, match=r"none.npz' does not exist: set dataset.path"):
        load(tmp_path / "none.npz")
    save(tmp_path / "a.npz")
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"b.npz' is truncated or damaged"):
        load(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=pixels(2, 2), y_train=labels(2))
    with pytest.raises(UserError, match=r"lacks x_train, x_test, y_test \(it holds images, y_train\)"):
        load(tmp_path / "c.npz")


def test_sha256_is_accepted_and_refused_for_other_sources(tmp_path):
    save(tmp_path / "a.npz")
    load(tmp_path / "a.npz", sha256=hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest())
    with pytest.raises(UserError, match=r"does not come from an .npz archive"):
        load_arrays("digits", "digits", None, False, (1, 28, 28), 10, sha256="0" * 64)


# --- torchvision's files ---------------------------------------------------------------------------------------------


def write_idx(path, array, zipped=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    if zipped:
        path = path.with_name(path.name + ".gz")
    (gzip.open if zipped else open)(path, "wb").write(content)
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files(tmp_path, name, folder, zipped):
    raw = tmp_path / folder / "raw"
    x, z = pixels(7, 28, 28), pixels(3, 28, 28)
    first = write_idx(raw / "train-images-idx3-ubyte", x, zipped)
    for stem, array in (("train-labels-idx1", labels(7)), ("t10k-images-idx3", z), ("t10k-labels-idx1", labels(3))):
        write_idx(raw / f"{stem}-ubyte", array, zipped)
    found = load_arrays(name, "torchvision", tmp_path, False, (1, 28, 28), 10)
    assert np.array_equal(found.x_train[:, 0], x)
    assert np.array_equal(found.x_test[:, 0], z)
    assert found.y_train.tolist() == labels(7).tolist()
    first.write_bytes(first.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_arrays(name, "torchvision", tmp_path, False, (1, 28, 28), 10)


def test_svhn_files_and_their_digit_ten(tmp_path):
    x = {"train": pixels(32, 32, 3, 12), "test": pixels(32, 32, 3, 5)}
    for part, array in x.items():
        savemat(tmp_path / f"{part}_32x32.mat", {"X": array, "y": (np.arange(array.shape[3]) % 10 + 1)[:, None]})
    found = load_arrays("svhn", "torchvision", tmp_path, False, (3, 32, 32), 10)
    assert np.array_equal(found.x_train, x["train"].transpose(3, 2, 0, 1))
    assert found.y_train.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    savemat(tmp_path / "test_32x32.mat", {"X": x["test"], "y": np.arange(5)[:, None] + 9})
    with pytest.raises(UserError, match="labels from 0 to 13"):
        load_arrays("svhn", "torchvision", tmp_path, False, (3, 32, 32), 10)
    mat = tmp_path / "test_32x32.mat"
    mat.write_bytes(mat.read_bytes()[:-1000])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_arrays("svhn", "torchvision", tmp_path, False, (3, 32, 32), 10)


def write_cifar(folder, key=bytes, protocol=2):
    folder.mkdir()
    rows = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows[name] = pixels(4, 3072)
        batch = {"data": rows[name], "labels": labels(4).tolist()}
        batch = {k.encode() if key is bytes else k: v for k, v in batch.items()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    return rows


@pytest.mark.parametrize(("key", "protocol"), [(bytes, 2), (str, 5)])
def test_cifar10_batches(tmp_path, key, protocol):
    rows = write_cifar(tmp_path / "cifar-10-batches-py", key, protocol)
    found = load_arrays("cifar10", "torchvision", tmp_path, False, (3, 32, 32), 10)
    assert found.x_train.shape == (20, 3, 32, 32)
    assert np.array_equal(found.x_train[4:8].reshape(4, -1), rows["data_batch_2"])
    assert np.array_equal(found.x_test.reshape(4, -1), rows["test_batch"])


def test_cifar10_pickle_cannot_run_code(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match="it asks for"):
        load_arrays("cifar10", "torchvision", tmp_path, False, (3, 32, 32), 10)


def test_missing_data_with_and_without_network(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"mnist.npz' does not exist.*dataset.download is false: put one"):
        load_arrays("mnist", "torchvision", tmp_path, False, (1, 28, 28), 10)
    import torchvision

    def offline(root, **_):
        (tmp_path / root / "half").write_bytes(b"half")
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "SVHN", offline)
    with pytest.raises(UserError, match="the download failed: no route to host"):
        load_arrays("svhn", "torchvision", tmp_path, True, (3, 32, 32), 10)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="use dataset=npz"):
        load_arrays("imagenet", "torchvision", tmp_path, True, (3, 32, 32), 10)


def test_download_moves_finished_files(tmp_path, monkeypatch):
    import torchvision

    def online(root, split, **_):
        savemat(f"{root}/{split}_32x32.mat", {"X": pixels(32, 32, 3, 4), "y": np.ones((4, 1))})

    monkeypatch.setattr(torchvision.datasets, "SVHN", online)
    assert load_arrays("svhn", "torchvision", tmp_path, True, (3, 32, 32), 10).x_train.shape == (4, 3, 32, 32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test_32x32.mat", "train_32x32.mat"]
    assert torchvision_sources.read_torchvision_files("svhn", tmp_path) is not None


# --- digits, writing, fingerprint ------------------------------------------------------------------------------------


def test_digits_are_stratified_and_always_the_same():
    first, second = digits(), digits()
    assert first["x_train"].shape == (1437, 1, 28, 28)
    assert first["x_test"].shape == (360, 1, 28, 28)
    assert first["x_train"].max() == 255
    assert all(np.array_equal(first[name], second[name]) for name in first)
    counts = np.bincount(first["y_test"])
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path):
    target = tmp_path / "deep" / "a.bin"
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"old")

    def fail():
        with atomic_write(target) as temporary:
            temporary.write_bytes(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == ["a.bin"]


def test_fingerprint_sees_labels_pixels_shape_and_settings_but_not_the_layout():
    x, y = pixels(50, 3, 4, 4), np.arange(50)
    base = fingerprint((x, y), "s")
    assert base == fingerprint((x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), y), "s")
    other, relabeled = x.copy(), y.copy()
    other[7, 1, 2, 2] ^= 1
    relabeled[3] = 4
    variants = [((other, y), "s"), ((x, relabeled), "s"), ((x[:49], y), "s"), ((x, y), "t")]
    assert len({base, *(fingerprint(*variant) for variant in variants)}) == 5
