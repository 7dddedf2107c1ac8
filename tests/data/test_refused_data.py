"""Runs on data that cannot be meant: one sentence, and no trace of the run."""

import numpy as np
import pytest
from omegaconf import OmegaConf, open_dict

from robustforge.cli import pipeline
from robustforge.types import UserError

X = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
Y = np.arange(40) % 4
GOOD = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
OBJECTS = np.array([X[0], None], dtype=object)

# what is wrong in the archive: words of the sentence
ARRAYS = {
    "label -1": ({"y_train": Y - 1}, "-1"),
    "label too high": ({"y_train": Y + 1}, "num_classes"),
    "test label too high": ({"y_test": Y + 9}, "num_classes"),
    "labels of text": ({"y_train": Y.astype(str)}, "labels"),
    "labels between": ({"y_train": Y + 0.5}, "label"),
    "labels NaN": ({"y_train": np.full(40, np.nan)}, "label"),
    "too few labels": ({"y_train": Y[:-1]}, "39"),
    "scores for labels": ({"y_train": np.random.default_rng(0).random((40, 4))}, "label"),
    "a class is missing": ({"y_train": np.zeros(40, int)}, "class"),
    "no label": ({"y_test": Y[:0]}, "40"),
    "complex labels": ({"y_train": Y + 0j}, "label"),
    "objects": ({"x_train": OBJECTS}, "x_train"),
    "objects for labels": ({"y_test": np.array([{}] * 40, dtype=object)}, "y_test"),
    "no image": ({"x_train": X[:0], "y_train": Y[:0]}, "x_train"),
    "no test image": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test"),
    "NaN": ({"x_train": np.full(X.shape, np.nan)}, "NaN"),
    "infinite": ({"x_test": np.full(X.shape, np.inf)}, "x_test"),
    "normalized": ({"x_train": X / 127.5 - 1}, "[0, 1]"),
    "16 bits": ({"x_train": X.astype(np.int32) * 256}, "x_train"),
    "one flat row each": ({"x_train": X.reshape(40, 64)}, "x_train"),
    "another size": ({"x_train": X[:, :4, :4]}, "x_train"),
    "text": ({"x_train": X.astype(str)}, "x_train"),
    "black": ({"x_train": X * 0}, "black"),
    "a missing array": ({"x_test": None}, "x_test"),
}


@pytest.fixture(scope="module")
def base(compose):
    return compose("defense=none", "debug=fast", "dataset=npz", "dataset.shape=[1,8,8]", "dataset.num_classes=4")


@pytest.fixture
def refusal(base, tmp_path):
    """refusal(path, **settings): why a run on this archive or folder is refused; it leaves nothing."""

    def call(path, **settings):
        cfg = base.copy()
        with open_dict(cfg):
            cfg.paths.output_dir, cfg.paths.store_dir = str(tmp_path / "outputs"), str(tmp_path / "store")
            cfg.dataset.path = str(path)
            for key, value in settings.items():
                OmegaConf.update(cfg, f"dataset.{key}", value)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError) as caught:
            pipeline.train(cfg, tmp_path / "run")
        assert sorted(tmp_path.rglob("*")) == before
        text = str(caught.value)
        assert "\n" not in text
        assert text[-1] in ".?"
        return text

    return call


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_cannot_be_meant(refusal, tmp_path, name):
    changed, word = ARRAYS[name]
    np.savez(tmp_path / "a.npz", **{key: value for key, value in (GOOD | changed).items() if value is not None})
    assert word in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", b"\x93NUMPY", None])
def test_files_that_are_no_archive(refusal, tmp_path, content):
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    assert "a.npz" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "folders", [[], ["train"], ["train", "test"], ["train/a", "test/a"], ["train/a", "train/b", "test/a", "test/b"]]
)
def test_folders_without_images(refusal, tmp_path, folders):
    (tmp_path / "images").mkdir()
    for folder in folders:
        (tmp_path / "images" / folder).mkdir(parents=True)
    assert "images" in refusal(tmp_path / "images", kind="imagefolder", name="imagefolder")


def test_another_content_than_was_promised(refusal, tmp_path):
    np.savez(tmp_path / "a.npz", **GOOD)
    assert "sha256" in refusal(tmp_path / "a.npz", sha256="0" * 64).lower()
