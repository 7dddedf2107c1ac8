"""What was damaged on the disk is found, said, set aside and made again; or refused where nothing may be made."""

import json
import os
import pickle

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from test_stage_runner import MODEL, Killed, plain, same

from robustforge.fingerprint import key_of
from robustforge.manifest import check_file, file_hash, set_aside
from robustforge.training.store import ArtifactStore
from robustforge.types import DamagedError, UserError

KEY = key_of({"stage": "a"})


def flip(path, at=None):
    """Changes one byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 0xFF
    path.write_bytes(content)


def edited(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.fixture
def product(tmp_path):
    """A store with one product; its folder."""
    store = ArtifactStore(tmp_path / "store")
    (store.workspace("a", KEY) / "images.npy").write_bytes(bytes(range(200)))
    return store, store.commit("a", KEY, {}, ("images.npy",)).folder


DAMAGE = {
    "flipped": (lambda f: flip(f / "images.npy"), "images.npy' is damaged"),
    "cut": (lambda f: (f / "images.npy").write_bytes(b"0" * 10), "images.npy' is damaged"),
    "gone": (lambda f: (f / "images.npy").unlink(), "images.npy' is missing"),
    "empty manifest": (lambda f: (f / "manifest.json").write_text(""), "manifest.json' is damaged"),
    "cut manifest": (lambda f: (f / "manifest.json").write_text('{"key": "'), "manifest.json' is damaged"),
    "deep manifest": (lambda f: (f / "manifest.json").write_text("[" * 200_000), "manifest.json' is damaged"),
    "list": (lambda f: (f / "manifest.json").write_text("[]"), "holds no JSON object"),
    "braces": (lambda f: (f / "manifest.json").write_text("{}"), "not the manifest of this product"),
    "other key": (lambda f: edited(f / "manifest.json", key="b" * 64), "not the manifest of this product"),
    "no files": (lambda f: edited(f / "manifest.json", files={}), "names no files"),
    "elsewhere": (lambda f: edited(f / "manifest.json", files={"../a": "0"}), "'../a' is no file of its folder"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_damage_of_a_product_is_found_and_named(product, kind):
    store, folder = product
    assert store.find("a", KEY) is not None
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(DamagedError, match=message):
        store.find("a", KEY)


def test_hashes_are_remembered_and_notice_another_content(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    digest = file_hash(path)
    with monkeypatch.context() as patch:
        patch.setattr("robustforge.manifest.sha256_of", lambda _: pytest.fail("hashed twice"))
        assert file_hash(path) == digest
        check_file(path, ["other", digest])
    os.utime(path, ns=(1, 1))
    path.write_bytes(b"two")
    assert file_hash(path) != digest
    assert set_aside(path, "It is bad.").name == "a.damaged-1"
    path.write_bytes(b"three")
    assert set_aside(path, "It is bad.").name == "a.damaged-2"


def test_damaged_weights_are_made_again_and_evaluation_refuses_them(run, weights, caplog):
    first = run(plain())
    folder = first.store.folder("undefended", first.reports[0].key)
    flip(folder / "weights.safetensors")
    with pytest.raises(
        UserError, match=r"lacks .* undefended \('.*weights.safetensors' is damaged: .*\): give the same"
    ):
        run(plain(), only_reuse=True)
    assert folder.is_dir()
    again = run(plain())
    assert not again.reports[0].reused
    assert same(weights(first.defense), weights(again.defense))
    assert (folder.parent / f"{folder.name}.damaged-1" / "weights.safetensors").exists()
    assert caplog.text.count("weights.safetensors' is damaged") == 1
    assert "made again" in caplog.text
    assert run(plain()).reports[0].reused


def test_weights_that_do_not_fit_any_more_are_made_again(run, caplog):
    """As after a renamed layer: the hash is right, and the networks are others."""
    from robustforge.training.store import save_modules

    first = run(plain())
    key = first.reports[0].key
    folder = first.store.folder("undefended", key)
    other = plain(model=lambda: MODEL(hidden=17))
    save_modules(folder / "weights.safetensors", other, ("undefended",))
    edited(folder / "manifest.json", files={"weights.safetensors": file_hash(folder / "weights.safetensors")})
    assert not run(plain()).reports[0].reused
    assert "holds weights of other networks" in caplog.text
    (folder / "weights.safetensors").write_bytes(b"no tensors at all")
    edited(folder / "manifest.json", files={"weights.safetensors": file_hash(folder / "weights.safetensors")})
    assert not run(plain()).reports[0].reused


class Touching:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def crafted(path, marker):
    torch.save({"state_dict": Touching(str(marker))}, path)
    (path.parent / "resume.json").write_text(json.dumps({"sha256": [file_hash(path)]}))


@pytest.mark.parametrize("kind", ["flipped", "cut", "no manifest", "crafted"])
def test_a_damaged_resume_point_is_set_aside_and_runs_nothing(run, weights, tmp_path, caplog, kind):
    unbroken = run(plain(2), store="unbroken")
    with pytest.raises(RuntimeError, match="killed"):
        run(plain(2), callbacks=[Killed(1)])
    (path,) = (tmp_path / "store" / ".partial").glob("*/resume.ckpt")
    {
        "flipped": lambda: flip(path),
        "cut": lambda: path.write_bytes(path.read_bytes()[:-100]),
        "no manifest": lambda: (path.parent / "resume.json").unlink(),
        "crafted": lambda: crafted(path, tmp_path / "ran"),
    }[kind]()
    counted = Killed()
    again = run(plain(2), callbacks=[counted])
    assert counted.epochs == [0, 1]
    assert not (tmp_path / "ran").exists()
    assert same(weights(unbroken.defense), weights(again.defense))
    assert caplog.text.count("kept as resume.ckpt.damaged-1 and made again") == 1


def test_a_kill_between_the_two_writes_leaves_a_resume_point(run, monkeypatch, tmp_path):
    """The manifest knows the new checkpoint already, and the old one is still there."""
    replace = os.replace

    def dying(source, target):
        if str(target).endswith("resume.ckpt") and os.path.exists(target):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("robustforge.training.resume.os.replace", dying)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(plain(3))
    counted = Killed()
    run(plain(3), callbacks=[counted])
    assert counted.epochs == [1, 2]


def test_checkpoints_are_loaded_as_tensors_alone(run, monkeypatch):
    seen = []
    fit = pl.Trainer.fit
    monkeypatch.setattr(pl.Trainer, "fit", lambda self, *a, **k: seen.append(k["weights_only"]) or fit(self, *a, **k))
    run(plain())
    assert seen == [True]


@pytest.mark.parametrize("limits", [{"limit_train_batches": 0}, {"max_steps": 0}])
def test_nothing_trained_is_nothing_stored(run, tmp_path, limits):
    with pytest.raises(UserError, match="Stage undefended made no training step, and nothing was stored"):
        run(plain(), limits=limits)
    assert not list((tmp_path / "store").glob("undefended-*"))


def test_no_training_images_are_refused(run, monkeypatch):
    monkeypatch.setattr("robustforge.data.resident.Split.__len__", lambda _: 0)
    with pytest.raises(UserError, match="There are 0 training images for 1 processes"):
        run(plain())


def test_crafted_files_of_a_store_run_nothing(product, tmp_path):
    """Arrays of Python objects, and a pickle in the place of weights: whatever the manifest says."""
    store, folder = product
    bomb = np.array([Touching(str(tmp_path / "ran"))], dtype=object)
    np.save(folder / "images.npy", bomb, allow_pickle=True)
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Touching(str(tmp_path / "ran"))))
    edited(
        folder / "manifest.json",
        files={name: file_hash(folder / name) for name in os.listdir(folder) if "j" not in name},
    )
    found = store.find("a", KEY)
    with pytest.raises(DamagedError, match="images.npy' is damaged"):
        found.check_images((1, 1, 2, 2))
    with pytest.raises(DamagedError, match="weights.safetensors' is damaged"):
        found.check_modules(torch.nn.Sequential(torch.nn.Linear(1, 1)), ("0",))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("value", "message"), [(7.5, "from 0 to 7.5"), (np.nan, "NaN"), (None, "has shape")])
def test_stored_images_that_are_none_are_damaged(tmp_path, value, message):
    store = ArtifactStore(tmp_path / "other")
    images = np.zeros((2, 1, 2, 2), np.float32)
    images[1, 0, 0, 0] = 0 if value is None else value
    np.save(store.workspace("a", KEY) / "images.npy", images)
    artifact = store.commit("a", KEY, {}, ("images.npy",))
    with pytest.raises(DamagedError, match=message):
        artifact.check_images((3 if value is None else 2, 1, 2, 2))
