"""The artifact store: complete or absent, under a key of everything."""

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustforge.fingerprint import code_state, key_of
from robustforge.training.store import ArtifactStore, save_modules
from robustforge.types import UserError

KEY = key_of({"stage": "a"})


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(tmp_path / "store")


def test_only_the_committed_is_found(store):
    assert store.find("a", KEY) is None
    workspace = store.workspace("a", KEY)
    (workspace / "weights.safetensors").write_text("half")
    (workspace / "manifest.json").write_text("{}")  # even a manifest does not make it a product
    assert store.find("a", KEY) is None
    artifact = store.commit("a", KEY, {"stage": "a"}, ("weights.safetensors",), 2.5)
    found = store.find("a", KEY)
    assert found == artifact
    assert found.seconds == 2.5
    assert found.key == KEY
    assert sorted(p.name for p in found.folder.iterdir()) == ["manifest.json", "weights.safetensors"]
    manifest = json.loads((found.folder / "manifest.json").read_text())
    digest = hashlib.sha256(b"half").hexdigest()
    files = {"weights.safetensors": digest}
    assert manifest == {"key": KEY, "stage": "a", "code": code_state(), "files": files, "seconds": 2.5}
    assert not found.by_other_code
    assert not workspace.exists()
    assert store.find("b", KEY) is None
    assert store.find("a", key_of({"stage": "b"})) is None
    assert ArtifactStore(store.root).find("a", KEY) == artifact


def test_commit_keeps_only_the_product(store):
    workspace = store.workspace("a", KEY)
    (workspace / "images.npy").write_text("x")
    (workspace / "resume.ckpt").write_text("x")
    (workspace / "logs").mkdir()
    (workspace / "logs" / "more").write_text("x")
    folder = store.commit("a", KEY, {}, ("images.npy",)).folder
    assert sorted(p.name for p in folder.iterdir()) == ["images.npy", "manifest.json"]


def test_a_folder_without_a_manifest_is_replaced(store):
    target = store.root / f"a-{KEY[:16]}"
    target.mkdir()
    (target / "images.npy").write_text("half a copy by somebody else's tool")
    assert store.find("a", KEY) is None
    (store.workspace("a", KEY) / "images.npy").write_text("whole")
    assert (store.commit("a", KEY, {}, ("images.npy",)).folder / "images.npy").read_text() == "whole"


def test_an_interrupted_workspace_is_found_again(store):
    (store.workspace("a", KEY) / "resume.ckpt").write_text("epoch 3")
    again = ArtifactStore(store.root)
    assert (again.workspace("a", KEY) / "resume.ckpt").read_text() == "epoch 3"
    assert not list(again.workspace("b", KEY).iterdir())
    assert again.lock_path("a", KEY) != again.lock_path("b", KEY)
    assert again.lock_path("a", KEY).parent.is_dir()


def test_killed_between_the_manifest_and_the_rename(store, monkeypatch):
    (store.workspace("a", KEY) / "images.npy").write_text("whole")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.commit("a", KEY, {}, ("images.npy",))
    assert store.find("a", KEY) is None
    assert store.commit("a", KEY, {}, ("images.npy",)) == store.find("a", KEY)


def test_a_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written \(.+\): set paths.store_dir"):
        ArtifactStore(tmp_path / "file" / "store")
    assert not list(ArtifactStore(tmp_path / "fine").root.iterdir())  # the probe leaves nothing behind


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(), PLAIN, max_size=4), st.dictionaries(st.text(), PLAIN, max_size=4))
def test_keys_are_the_same_exactly_for_the_same_values(a, b):
    same = json.dumps({"format": 1, **a}, sort_keys=True) == json.dumps({"format": 1, **b}, sort_keys=True)
    assert (key_of(a) == key_of(b)) is same
    assert key_of(dict(reversed(a.items()))) == key_of(a)
    assert len(key_of(a)) == 64


def test_keys_change_with_any_value():
    base = {"stage": "a", "seed": 0, "settings": {"lr": 0.1, "layers": [1, 2]}, "uses": {}}
    changes = [
        {"stage": "b"}, {"seed": 1}, {"settings": {"lr": 0.1000001, "layers": [1, 2]}}, {"more": None}, {"seed": "0"},
        {"settings": {"lr": 0.1, "layers": [2, 1]}}, {"uses": {"a": "x"}}, {"settings": {"lr": 0.1}}, {"seed": False},
    ]  # fmt: skip
    keys = {key_of(base), *(key_of({**base, **change}) for change in changes)}
    assert len(keys) == len(changes) + 1
    with pytest.raises(ValueError, match="JSON compliant"):
        key_of({"seed": float("nan")})
    with pytest.raises(TypeError):
        key_of({"seed": torch.zeros(1)})


class Owner(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.ab = nn.Linear(2, 2).to(torch.bfloat16)
        self.c = nn.ModuleDict({"in": nn.Linear(3, 3, bias=False), "out": nn.Linear(3, 3, bias=False)})
        if tied:
            self.c["out"].weight = self.c["in"].weight


@pytest.mark.parametrize("tied", [False, True])
def test_weights_round_trip(store, tied):
    torch.manual_seed(0)
    owner = Owner(tied).to(memory_format=torch.channels_last)
    owner.a(torch.rand(2, 3, 8, 8))
    names = ("a", "ab", "c")
    save_modules(store.workspace("a", KEY) / "weights.safetensors", owner, names)
    artifact = store.commit("a", KEY, {}, ("weights.safetensors",))
    torch.manual_seed(1)
    other = Owner(tied)
    assert not torch.equal(other.ab.weight, owner.ab.weight)
    artifact.load_modules(other, names)
    for name, value in owner.state_dict().items():
        loaded = other.state_dict()[name]
        assert loaded.dtype == value.dtype
        assert torch.equal(loaded, value)
    assert other.a[1].num_batches_tracked == 1
    # only what was asked for is stored, and only what was asked for is loaded
    torch.manual_seed(2)
    third = Owner(tied)
    before = third.ab.weight.clone()
    artifact.load_modules(third, ("a",))
    assert torch.equal(third.a[0].weight, owner.a[0].weight)
    assert torch.equal(third.ab.weight, before)


def test_weights_that_do_not_fit_are_refused(store):
    save_modules(store.workspace("a", KEY) / "weights.safetensors", Owner(), ("a",))
    artifact = store.commit("a", KEY, {}, ("weights.safetensors",))
    with pytest.raises(RuntimeError, match="Missing key"):
        artifact.load_modules(Owner(), ("ab",))
    with pytest.raises(RuntimeError, match="size mismatch"):
        other = Owner()
        other.a = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
        artifact.load_modules(other, ("a",))


def test_images_round_trip(store):
    images = np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32)
    np.save(store.workspace("a", KEY) / "images.npy", images)
    loaded = store.commit("a", KEY, {}, ("images.npy",)).load_images()
    assert isinstance(loaded, np.memmap)
    assert np.array_equal(loaded, images)
    with pytest.raises(ValueError, match="read-only"):
        loaded[0] = 0
