"""A run folder is somebody else's until proven otherwise: it builds nothing unknown and looks nothing up."""

import owned
import pytest
import torch
from omegaconf import OmegaConf

import robustforge as rf
from robustforge.config import trust
from robustforge.config.trust import check_trusted, load_plain

CRAFTED = {
    "pathlib.Path.touch": {"_args_": ["{marker}"]},
    "torch.load": {"f": "{pickle}", "weights_only": False},
    "builtins.exec": {"_args_": ["open({marker!r}, 'w')"]},
    "robustforge.files.write_text": {"path": "{marker}", "text": "mine"},
    "robustforge.config.isolated.subprocess.run": {"args": ["touch", "{marker}"]},
    "robustforge.attacks.core.session.torch.load": {"f": "{pickle}", "weights_only": False},
    "functools.partial": {"_args_": ["{marker}"]},
    "torch.optim.lr_scheduler.torch.load": {"f": "{pickle}"},
    "owned.torch.load": {"f": "{pickle}", "weights_only": False},
}


class Touching:
    """Runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compose):
    """A run that was trained here, in a folder of its own."""
    from robustforge.cli import pipeline

    folder = tmp_path_factory.mktemp("trained")
    cfg = compose(
        "debug=fast", "report=false", "dataset.limit_train=64", "dataset.batch_size=32", "trainer.enable_progress_bar=false",
        "defense=none", "model=lenet", f"paths.output_dir={folder}", f"paths.store_dir={folder / 'store'}",
        "evaluate=false",
    )  # fmt: skip
    pipeline.train(cfg, folder / "run")
    return folder / "run"


@pytest.fixture
def crafted(trained, tmp_path):
    """crafted(place, node): the trained run with one node put somewhere in its configuration."""

    def call(place, node):
        cfg = OmegaConf.load(trained / "config.yaml")
        OmegaConf.update(cfg, place, node, force_add=True, merge=False)
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=False))
        return folder

    return call


@pytest.mark.parametrize(
    "place", ["dataset", "defense", "callbacks.more", "defense.training.optimizer", "defense.list"]
)
@pytest.mark.parametrize("target", list(CRAFTED))
def test_nothing_of_it_is_run(crafted, tmp_path, place, target):
    marker, pickle = tmp_path / "marker", tmp_path / "pickle.pt"
    torch.save(Touching(str(marker)), pickle)
    marker.unlink(missing_ok=True)
    names = {"marker": str(marker), "pickle": str(pickle)}
    arguments = {
        key: value.format(**names) if isinstance(value, str) else value for key, value in CRAFTED[target].items()
    }
    arguments = {
        key: [item.format(**names) for item in value] if isinstance(value, list) else value
        for key, value in arguments.items()
    }
    node = {"_target_": target, **arguments}
    folder = crafted(place, [node] if place.endswith("list") else node)
    with pytest.raises(rf.UserError, match=target.replace(".", r"\.")) as refused:
        rf.load_run(folder, trust=("owned",) if target.startswith("owned") else ())
    assert place in str(refused.value)
    assert not marker.exists()


@pytest.mark.parametrize("module", ["evaluate", "adversarial_set"])
@pytest.mark.parametrize("target", ["pathlib.Path.touch", "torch.load", "builtins.exec"])
def test_the_commands_refuse_it_too(crafted, tool, tmp_path, module, target):
    marker = tmp_path / "marker"
    folder = crafted("defense", {"_target_": target, "_args_": [str(marker)]})
    done = tool(module, f"run={folder}")
    assert done.code == 2
    assert done.err.startswith("Error: The run's configuration builds")
    assert target in done.err
    assert not marker.exists()
    assert [path.name for path in folder.iterdir()] == ["config.yaml"], "nothing was written"


@pytest.mark.parametrize("module", ["evaluate", "adversarial_set"])
def test_no_interpolation_is_resolved(crafted, tool, monkeypatch, module):
    monkeypatch.setenv("SECRET_OF_MINE", "hush")
    folder = crafted("name", "${oc.env:SECRET_OF_MINE}")
    with pytest.raises(rf.UserError, match=r"interpolation '\$\{oc.env:SECRET_OF_MINE\}' at name"):
        rf.load_run(folder)
    done = tool(module, f"run={folder}")
    assert done.code == 2
    assert "${oc.env:SECRET_OF_MINE}" in done.err
    assert "hush" not in done.out + done.err


def test_yaml_that_makes_objects_is_no_configuration(tmp_path):
    marker = tmp_path / "marker"
    (tmp_path / "config.yaml").write_text(f"a: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(rf.UserError, match="cannot be read as a configuration"):
        rf.load_run(tmp_path)
    assert not marker.exists()
    for text in ("- 1\n", "a: [1\n", "a: ${b"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(rf.UserError):
            load_plain(tmp_path / "config.yaml")
    with pytest.raises(rf.UserError, match="no run folder"):
        rf.load_run(tmp_path / "nowhere")


def test_what_our_own_configurations_build_is_trusted(compose):
    for name in ("mrr", "gmvae", "defense_gan", "cae"):
        cfg = OmegaConf.create(OmegaConf.to_container(compose(f"defense={name}", "optimizer=sgd"), resolve=True))
        check_trusted(cfg)
    check_trusted(OmegaConf.create({"a": {"_target_": "torch.optim.RAdam"}}))
    for target in trust._own_targets():
        lightnings = ("lightning.pytorch.Trainer", "lightning.pytorch.callbacks.LearningRateMonitor")
        assert target.startswith(("robustforge.", "torch.optim.")) or target in lightnings
        assert not target.startswith(("robustforge.config", "robustforge.files", "robustforge.cli"))


def test_modules_that_the_reader_trusts(crafted):
    node = {"_target_": "owned.Small", "_partial_": True}
    cfg = OmegaConf.create({"model": node})
    with pytest.raises(rf.UserError, match="add trust=owned"):
        check_trusted(cfg)
    check_trusted(cfg, ["owned"])
    check_trusted(cfg, "owned")
    check_trusted(OmegaConf.create({"a": {"_target_": "torchvision.models.resnet18"}}), "torchvision")
    with pytest.raises(rf.UserError, match="PYTHONPATH"):
        check_trusted(OmegaConf.create({"a": {"_target_": "owned.Absent"}}), "owned")
    with pytest.raises(rf.UserError, match="own"):
        check_trusted(OmegaConf.create({"a": {"_target_": "ownedby.me"}}), "owned")
    with pytest.raises(rf.UserError, match="at a._target_"):
        check_trusted(OmegaConf.create({"a": {"_target_": ["torch.load"]}}))
    assert owned.torch is torch


def test_a_run_of_ones_own_comes_back(trained):
    defense = rf.load_run(trained)
    assert isinstance(defense, rf.Defense)
    assert not any(module.training for module in defense.modules())
    assert not any(parameter.requires_grad for parameter in defense.parameters())
    x = torch.rand(3, 1, 28, 28)
    assert defense(x).logits.shape == (3, 10)
    assert torch.equal(defense(x).logits, rf.load_run(trained)(x).logits)
    assert rf.attack(defense, x, torch.arange(3), "pgd", eps=0.1, steps=2).x_adv.shape == x.shape


def test_a_store_that_is_gone_is_not_made(crafted, tmp_path):
    folder = crafted("paths.store_dir", str(tmp_path / "elsewhere"))
    with pytest.raises(rf.UserError, match="store .* is not there"):
        rf.load_run(folder)
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(rf.UserError, match="lacks this run's stage undefended"):
        rf.load_run(folder)
