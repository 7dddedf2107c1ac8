"""Exported runs: self-contained, portable, told in a card, checked when they are read, and uploaded when asked."""

import json
import os
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

import robustforge as rf
from robustforge.cli import hub, pipeline
from robustforge.cli.export import export
from robustforge.cli.hub import upload
from robustforge.config.exported import FILES, write_exported, write_sums
from robustforge.defenses.pretrained import Pretrained
from robustforge.reporting.card import model_card

X = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compose):
    """The folder of a tiny run with a store beside it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustforge.cli.pictures.draw", lambda *_: [])
        cfg = compose(
            "debug=fast", "dataset.limit_train=64", "dataset.batch_size=32", "trainer.enable_progress_bar=false",
            "defense=none", "model=lenet", "protocol.strict=true", "attack.steps=1",
            "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 1}}",
            f"paths.output_dir={folder}", f"paths.store_dir={folder / 'store'}",
        )  # fmt: skip
        pipeline.train(cfg, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    """The run's export."""
    asked = {
        "run": str(trained), "to": str(tmp_path_factory.mktemp("made") / "mine"), "evaluation": None, "push": None,
        "private": True, "trust": [], "dataset": {"path": None}, "paths": {"store_dir": None, "data_dir": None},
    }  # fmt: skip
    return export(OmegaConf.create(asked))


@pytest.fixture
def exported(made, tmp_path):
    """A copy of it, where no store is near."""
    return Path(shutil.copytree(made, tmp_path / "there" / "mine"))


def test_a_folder_that_needs_nothing_else(trained, tool, tmp_path):
    exported = tmp_path / "there" / "mine"
    done = tool("export", f"run={trained}", f"to={exported}")
    assert done.code == 0, done.err
    assert {path.name for path in exported.iterdir()} == set(FILES)
    assert oct(exported.stat().st_mode)[-3:] == "755"
    assert [path.name for path in exported.parent.iterdir()] == ["mine"], "nothing half-made is left"
    for path in exported.iterdir():
        assert os.fsencode(trained.parent) not in path.read_bytes(), path.name
        assert os.fsencode(Path.home()) not in path.read_bytes(), path.name
    original, loaded = rf.load_run(trained), rf.load_run(exported)
    assert torch.equal(loaded(X).logits, original(X).logits)
    assert list(load_file(exported / "model.safetensors")) == sorted(original.state_dict())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not any(module.training for module in loaded.modules())


def test_its_card_says_how_far_it_can_be_believed(trained, exported, tmp_path, tool):
    text = (exported / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert "license" not in front
    assert front["library_name"] == "robustforge"
    assert {"adversarial-robustness", "none", "digits"} <= set(front["tags"])
    assert ModelCard(text).data.library_name == "robustforge", "as the hub reads it"
    result = json.loads((trained / "result.json").read_text())
    assert json.loads((exported / "result.json").read_text()) == result
    told = text.split("## Robustness")[1]
    (worst,) = result["worst_case"]
    assert (worst["accuracy"], worst["verdict"]) == (0, "robust accuracy"), "no image stands, and nothing lowers that"
    for word in ("protocol: smoke", "seed: 0", "images: 8 of the test split", f"commit {result['code']['commit']}",
                 f"version: {result['code']['version']}", "robust accuracy 0.0", "violated indicators: none"):  # fmt: skip
        assert word in told, word
    failed = result | {"worst_case": [worst | {"verdict": "unreliable", "violated": ["loss_moved"]}]}
    doubted = model_card("n", "d", "x", (1, 2, 2), failed, result["code"])
    for word in ("violated indicators: loss moved", "is an upper bound, no robust accuracy is stated"):
        assert word in doubted, word
    assert 'rf.load_run(".")' in text
    code = {"version": None, "commit": "abc", "modified": True}
    bare = model_card("n", "d", "x", (1, 2, 2), None, code, trust=["mynets"])
    assert "was not evaluated: nothing is known" in bare
    assert 'rf.load_run(".", trust=["mynets"])' in bare
    assert "version unknown" in bare
    assert "commit abc with changes" in bare
    # the table of another evaluation
    again = tool("export", f"run={trained}", f"to={tmp_path / 'else'}", f"evaluation={tmp_path}")
    assert (again.code, "no result.json" in again.err) == (2, True)
    assert not (tmp_path / "else").exists()


def test_it_is_attacked_as_the_run_is(trained, exported, tool):
    asked = "protocol=smoke", "protocol.n_test=4", "attack.steps=1", "progress=false", "+protocol.pictures=false"
    for folder in (trained, exported):
        done = tool("evaluate", f"run={folder}", *asked)
        assert done.code == 0, done.err
    here, there = (
        pq.read_table(next((folder / "evaluations").glob("*/records.parquet"))) for folder in (trained, exported)
    )
    assert here.to_pydict().keys() == there.to_pydict().keys()
    for name in set(here.column_names) - {"risk", "threshold", "false_positive_rate"}:  # NaN, which equals nothing
        assert str(here[name].to_pylist()) == str(there[name].to_pylist()), name
    set_made = tool("adversarial_set", f"run={exported}", "attack=fgsm", "progress=false")
    assert set_made.code == 0, set_made.err


def test_other_data_is_said(exported, tool):
    asked = "protocol=clean", "protocol.n_test=4", "progress=false", "+protocol.pictures=false"
    environment = json.loads((exported / "environment.json").read_text())
    (exported / "environment.json").write_text(json.dumps({**environment, "data": "other"}))
    write_sums(exported)
    done = tool("evaluate", f"run={exported}", *asked)
    assert (done.code, "The data is not that of the exported run" in done.out + done.err) == (0, True)


def other_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, folder / "model.safetensors")


def fewer_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(dict(list(tensors.items())[1:]), folder / "model.safetensors")
    write_sums(folder)


def no_weights(folder):
    (folder / "model.safetensors").write_bytes(b"junk")
    write_sums(folder)


def other_target(folder):
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.defense.model._target_ = "pathlib.Path.touch"
    OmegaConf.save(cfg, folder / "config.yaml")
    write_sums(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_weights, r"model.safetensors' is not the file that was exported"),
        (fewer_weights, r"does not hold the weights of this PlainClassifier \(.*Missing key"),
        (no_weights, "does not hold the weights"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "SHA256SUMS' cannot be read"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "config.yaml' is not the file that was exported"),
        (lambda folder: (folder / "result.json").write_text("{}"), "result.json' is not the file"),
        (other_target, "builds 'pathlib.Path.touch' at defense.model._target_"),
    ],
    ids=["weights", "fewer", "junk", "no sums", "empty sums", "result", "target"],
)
def test_what_was_changed_is_refused(exported, tool, change, message):
    change(exported)
    with pytest.raises(rf.UserError, match=message):
        rf.load_run(exported)
    done = tool("evaluate", f"run={exported}", "protocol=clean", "progress=false")
    assert done.code == 2
    assert not (exported / "evaluations" / "records.parquet").exists()


def test_the_card_is_the_readers_to_edit(exported):
    (exported / "README.md").write_text("---\nlicense: mit\n---\n")
    assert rf.load_run(exported)(X).logits.shape == (4, 10)


def test_places_that_are_taken_or_cannot_be_written(trained, exported, tool, tmp_path):
    again = tool("export", f"run={trained}", f"to={exported}")
    assert (again.code, "not an empty folder" in again.err) == (2, True)
    twice = tool("export", f"run={exported}")
    assert (twice.code, "is exported already" in twice.err) == (2, True)
    (tmp_path / "file").write_text("")
    inside = tool("export", f"run={trained}", f"to={tmp_path / 'file' / 'mine'}")
    assert (inside.code, "cannot be written" in inside.err) == (2, True)
    absent = tool("export", f"run={tmp_path / 'nowhere'}", f"to={tmp_path / 'mine'}")
    assert (absent.code, "no run folder" in absent.err) == (2, True)
    assert not (tmp_path / "mine").exists()


# ---- networks whose weights come from elsewhere ---------------------------------------------------------------------


class Fetching(torch.nn.Linear):
    """A network that would fetch its weights."""

    def __init__(self, weights=None, pretrained=False):
        if weights or pretrained:
            raise rf.UserError("fetched")
        super().__init__(4, 2)

    def forward(self, x):
        return super().forward(x.flatten(1))


class Deciding(Fetching):
    """One whose weights' name decides more than its weights."""

    def __init__(self, weights=None):
        super().__init__()
        self.scale = 2.0 if weights else 1.0

    def forward(self, x):
        return self.scale * super().forward(x)


@pytest.mark.parametrize(
    ("kind", "arguments", "kept"),
    [
        (Fetching, {"weights": "IMAGENET1K_V1"}, {"weights": None}),
        (Fetching, {"pretrained": True}, {"pretrained": None}),
        (Deciding, {"weights": "IMAGENET1K_V1"}, {"weights": "IMAGENET1K_V1"}),
    ],
    ids=["torchvision", "timm", "deciding"],
)
def test_weights_are_not_fetched_again(tmp_path, kind, arguments, kept):
    network = {"_target_": f"{__name__}.{kind.__name__}", "_partial_": True, **arguments}
    cfg = OmegaConf.create({
        "defense": {"_target_": "robustforge.defenses.pretrained.Pretrained", "network": network, "weights": "/a/b.pt"},
        "dataset": {"shape": [1, 2, 2], "path": "/data/x.npz", "data_dir": "/data"}, "paths": {"data_dir": "/data"},
        "logger": {"kind": "wandb", "entity": "me"},
    })  # fmt: skip
    made = Deciding("IMAGENET1K_V1") if kind is Deciding else Fetching()
    write_exported(tmp_path, Pretrained(lambda: made), cfg)
    written = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"))
    assert {name: written["defense"]["network"][name] for name in kept} == kept
    assert written["defense"]["weights"] is None
    assert written["dataset"] == {"shape": [1, 2, 2], "path": None, "data_dir": ""}
    assert written["logger"] == {"kind": "csv"}


def test_a_defense_that_does_not_come_back_is_not_exported(tmp_path):
    network = {"_target_": f"{__name__}.Fetching", "_partial_": True}
    node = {"_target_": "robustforge.defenses.pretrained.Pretrained", "network": network, "mean": None, "std": None}
    cfg = OmegaConf.create({"defense": node, "dataset": {"shape": [1, 2, 2]}, "paths": {}})
    with pytest.raises(rf.UserError, match="does not come back from its weights and arguments alone"):
        write_exported(tmp_path, Pretrained(Fetching, mean=0.5, std=0.5), cfg)
    assert not (tmp_path / "config.yaml").exists()


# ---- the hub --------------------------------------------------------------------------------------------------------


class Recording:
    """A hub that keeps what it is sent in a local folder."""

    def __init__(self, root):
        self.root, self.calls = root, []

    def create_repo(self, **arguments):
        self.calls.append(("create_repo", arguments))

    def upload_folder(self, *, folder_path, allow_patterns, **arguments):
        self.calls.append(("upload_folder", {"folder_path": folder_path, **arguments}))
        for path in Path(folder_path).iterdir():
            if path.name in allow_patterns:
                shutil.copy(path, self.root)
        return "https://huggingface.co/me/mine"


def test_an_upload_is_the_folder_and_nothing_else(trained, exported, tmp_path, tool, monkeypatch):
    (tmp_path / "hub").mkdir()
    recording = Recording(tmp_path / "hub")
    monkeypatch.setattr("robustforge.cli.export.hub_api", lambda: recording)
    (exported / "evaluations").mkdir()
    (exported / "secret.txt").write_text("mine alone")
    pushed = tool("export", f"run={exported}", "push=me/mine")
    assert pushed.code == 0, pushed.err
    assert [name for name, _ in recording.calls] == ["create_repo", "upload_folder"]
    created, sent = (arguments for _, arguments in recording.calls)
    assert created == {"repo_id": "me/mine", "repo_type": "model", "private": True, "exist_ok": True}
    assert sent["folder_path"] == str(exported)
    assert sent["repo_id"] == "me/mine"
    assert {path.name for path in recording.root.iterdir()} == set(FILES)
    assert torch.equal(rf.load_run(recording.root)(X).logits, rf.load_run(trained)(X).logits)
    # in one command
    both = tool("export", f"run={trained}", f"to={tmp_path / 'both'}", "push=me/mine", "private=false")
    assert both.code == 0, both.err
    assert recording.calls[2][1]["private"] is False
    assert recording.calls[3][1]["folder_path"] == str(tmp_path / "both")


def test_uploads_that_cannot_be(exported, tool, monkeypatch, tmp_path):
    for name in ("mine", "/tmp/folder", "https://huggingface.co/me/mine", "a/b/c"):
        refused = tool("export", f"run={exported}", f"push={name}")
        assert (refused.code, "give push=<user>/<name>" in refused.err) == (2, True), name
        with pytest.raises(rf.UserError, match="no repository"):
            upload(exported, name, Recording(tmp_path))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    missing = tool("export", f"run={exported}", "push=me/mine")
    assert (missing.code, "pip install 'robustforge[hub]'" in missing.err) == (2, True)
    monkeypatch.undo()

    class Refusing(Recording):
        def create_repo(self, **_):
            raise RuntimeError("no login")

    with pytest.raises(rf.UserError, match=r"\(RuntimeError: no login\): the folder .* is finished; log in"):
        upload(exported, "me/mine", Refusing(tmp_path))


def test_the_hubs_own_api_has_what_is_called():
    api = hub.hub_api()
    assert callable(api.create_repo)
    assert callable(api.upload_folder)
