"""From a network that somebody has to its number, to RobustBench's files, to an exported folder, and back."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

import robustforge as rf
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.cli import evaluating, pipeline
from robustforge.cli.robustbench import UNKNOWN, RobustBench
from robustforge.evaluation.attacking import Attacking
from robustforge.evaluation.protocol import Protocol, Suite
from robustforge.types import Threat

EPS = 2 / 255


def brought(folder, size, count, classes=1000):
    """An untrained ResNet-18 and images that it is right about, in memory and as files; the last one it gets wrong."""
    torch.manual_seed(0)
    network = resnet18(num_classes=classes).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    x = torch.tensor(pixels).float() / 255
    with torch.no_grad():
        y = network(x).argmax(1)
    y[-1] = (y[-1] + 1) % classes
    torch.save(network.state_dict(), folder / "net.pt")
    np.savez(folder / "mine.npz", x_train=pixels, y_train=y.numpy(), x_test=pixels, y_test=y.numpy())
    asked = (
        "defense=pretrained", "defense.network._target_=torchvision.models.resnet18",
        f"+defense.network.num_classes={classes}", f"defense.weights={folder / 'net.pt'}", "dataset=npz",
        f"dataset.path={folder / 'mine.npz'}", f"dataset.shape=[3,{size},{size}]", f"dataset.num_classes={classes}",
        f"dataset.limit_train={count}", f"threat.eps={EPS}", "attack.steps=2", "protocol=smoke",
        "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 2}}", "+protocol.pictures=false",
        "trainer.enable_progress_bar=false",
    )  # fmt: skip
    return network, x, y, asked


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize(
    ("size", "count"), [(32, 8), pytest.param(224, 16, marks=pytest.mark.slow)], ids=["32x32", "224x224"]
)
def test_a_resnet_with_a_thousand_classes(tmp_path, compose, tool, size, count):
    network, x, y, asked = brought(tmp_path, size, count)

    report = rf.evaluate(
        network, (x, y), eps=EPS, protocol=Protocol("mine", {"all": Suite({"fgsm": FGSM()})}, [Threat()], main=PGD(steps=2)),
    )  # fmt: skip
    assert report.clean_accuracy == pytest.approx(100 * (count - 1) / count)
    assert report.upper_bound < report.clean_accuracy

    cfg = compose(*asked, f"paths.output_dir={tmp_path}", f"paths.store_dir={tmp_path / 'store'}", "evaluate=false")
    pipeline.train(cfg, tmp_path / "run")
    attacked = ("protocol=smoke", "+protocol.pictures=false", f"threat.eps={EPS}", "attack.steps=2", "progress=false")
    refused = tool("evaluate", f"run={tmp_path / 'run'}", *attacked)
    assert (refused.code, "add trust=torchvision" in refused.err) == (2, True)
    done = tool("evaluate", f"run={tmp_path / 'run'}", *attacked, "trust=torchvision", "export=robustbench")
    assert done.code == 0, done.err
    (place,) = (tmp_path / "run" / "evaluations").glob("*/robustbench")
    told = json.loads((place / "claim.json").read_text())

    made = tool("export", f"run={tmp_path / 'run'}", f"to={tmp_path / 'mine'}", "trust=[torchvision]")
    assert made.code == 0, made.err
    with pytest.raises(rf.UserError, match="add trust=torchvision"):
        rf.load_run(tmp_path / "mine")
    defense = rf.load_run(tmp_path / "mine", trust="torchvision")
    with torch.no_grad():
        assert torch.equal(defense(x).logits, rf.load_run(tmp_path / "run", trust="torchvision")(x).logits)
        # the images are in the order of the test set, within the budget, and give the number that is claimed
        images = torch.load(place / "adv_complete.pt", weights_only=True)
        right = defense(images).logits.argmax(1) == y
    assert (images.shape, images.dtype) == (x.shape, torch.float32)
    assert 0 <= images.min() <= images.max() <= 1
    assert (images - x).abs().max() <= EPS + 1e-6
    assert told["external"] == f"{100 * right.float().mean():.2f}"
    assert float(told["external"]) < float(told["clean_acc"]) == round(100 * (count - 1) / count, 2)
    assert torch.equal(images[-1], x[-1]), "wrong as it is: the clean image"
    again = tool(
        "evaluate", f"run={tmp_path / 'mine'}", *attacked, "trust=torchvision", f"dataset.path={tmp_path / 'mine.npz'}"
    )
    assert again.code == 0, again.err


# ---- RobustBench's files --------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, compose, monkeypatch):
    """run(*overrides, network=...): an evaluation of a linear network on 12 images with an export; folder, claim."""
    monkeypatch.setattr("robustforge.cli.pictures.draw", lambda *_: [])
    torch.manual_seed(0)
    weight = torch.randn(4, 3 * 8 * 8)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
    y = (torch.tensor(pixels).flatten(1).float() / 255 @ weight.T).argmax(1)
    y[0] = (y[0] + 1) % 4
    arrays = {"x_train": np.repeat(pixels, 3, 0), "y_train": np.arange(36) % 4, "x_test": pixels, "y_test": y.numpy()}
    np.savez(tmp_path / "mine.npz", **arrays)
    torch.save({"layer.weight": weight, "layer.bias": torch.zeros(4)}, tmp_path / "net.pt")

    def call(*overrides, eps=None, kind="Plain"):
        cfg = compose(
            "defense=pretrained", f"defense.network._target_={__name__}.{kind}", f"defense.weights={tmp_path / 'net.pt'}",
            "dataset=npz", f"dataset.path={tmp_path / 'mine.npz'}", "dataset.shape=[3,8,8]", "dataset.num_classes=4",
            "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 2}}", "+protocol.pictures=false", "threat.eps=8/255",
            "attack.steps=2", "trainer.enable_progress_bar=false", f"paths.output_dir={tmp_path}",
            f"paths.store_dir={tmp_path / 'store'}", *overrides,
        )  # fmt: skip
        from robustforge.config.places import settled

        (tmp_path / "store").mkdir(exist_ok=True)
        evaluating.evaluate_run(settled(cfg), tmp_path / "run", asked=evaluating.Asked(export=RobustBench(eps)))
        place = tmp_path / "run" / "robustbench"
        return place, json.loads((place / "claim.json").read_text()), torch.tensor(pixels).float() / 255, y

    return call


class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 8 * 8, 4)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Drawing(Plain):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


def test_a_claim_holds_what_is_known_and_names_the_rest(run, capfd):
    place, told, x, y = run()
    said = capfd.readouterr().out
    assert {path.name for path in place.iterdir()} == {"adv_complete.pt", "claim.json", "issue.md"}
    assert [name for name, value in told.items() if value is None] == sorted(
        [*UNKNOWN, "autoattack_acc"], key=list(told).index
    )
    assert (told["dataset"], told["eps"], told["clean_acc"]) == ("npz", "8/255", "91.67")
    assert all(name in said for name in UNKNOWN)
    assert "leaderboards of cifar10, cifar100, imagenet, and this is npz" in said
    assert "less than AutoAttack, which this one does not show" in said
    text = (place / "issue.md").read_text()
    assert "npz, Linf, eps = 8/255" in text
    assert f"**Robust accuracy:** {told['external']}%" in text
    assert "pgd" in told["footnote"] or "bim" in told["footnote"] or "fgsm" in told["footnote"]
    images = torch.load(place / "adv_complete.pt", weights_only=True)
    changed = (images != x).flatten(1).any(1)
    network = Plain()
    network.load_state_dict(torch.load(place.parents[1] / "net.pt"))
    with torch.no_grad():
        wrong = network(images).argmax(1) != y
    assert torch.equal(changed, wrong & (torch.arange(12) > 0)), "changed where an attack turned it, and nowhere else"
    assert changed.sum() > 0


def test_one_of_several_budgets_is_exported(run):
    several = "protocol.budgets=[{_target_: robustforge.types.Threat, norm: linf, eps: 0.002}, {_target_: robustforge.types.Threat, norm: linf, eps: 0.1}]"
    _, last, _, _ = run(several)
    place, first, x, _ = run(several, eps="0.002")
    assert (last["eps"], first["eps"]) == ("0.1", "0.002")
    assert float(last["external"]) < float(first["external"])
    assert (torch.load(place / "adv_complete.pt") - x).abs().max() <= 0.002 + 1e-6
    with pytest.raises(rf.UserError, match="export_eps is 0.3, and the protocol attacks at 0.002, 0.1"):
        run(several, eps=0.3)


def test_what_robustbench_does_not_take_is_refused_before_anything_is_attacked(run, tmp_path):
    for overrides, kind, message in (
        (["protocol.n_test=4"], "Plain", "whole test set: set protocol.n_test=null"),
        (["dataset.limit_test=8"], "Plain", "the run knows 8 images of it"),
        ([], "Drawing", "answers at random"),
    ):
        with pytest.raises(rf.UserError, match=message):
            run(*overrides, kind=kind)
        assert not (tmp_path / "run").exists()


def test_systems_that_reject_and_protocols_without_attacks_are_refused():
    system = rf.system(Plain(), risk=lambda x: x.flatten(1).mean(1))
    data = SimpleNamespace(
        limit_test=None,
        test=SimpleNamespace(labels=torch.zeros(3), pixels=lambda index: torch.rand(3, 3, 8, 8)),
    )
    suites = {"all": Suite({"pgd": PGD()})}
    rejecting = Protocol("mine", suites, [Threat()], false_positive_rate=0.05)
    with pytest.raises(rf.UserError, match="no systems that reject"):
        RobustBench().check("mine", system, data, rejecting)
    RobustBench().check("mine", system, data, Protocol("mine", suites, [Threat()]))
    with pytest.raises(rf.UserError, match="attacks nothing"):
        RobustBench().check("mine", system, data, Protocol("mine", {}, [Threat()]))


@pytest.mark.parametrize("least", [12, 99], ids=["whole batches help", "nothing helps"])
def test_an_image_that_is_not_turned_again_alone(run, monkeypatch, caplog, tmp_path, least):
    attacked = Attacking.attacked

    def fails(self, cell, surface, batch, *more):
        later = (tmp_path / "run" / "records.parquet").exists()
        few = later and cell.attack is not None and len(batch.y) < least
        return attacked(self, replace(cell, attack=None) if few else cell, surface, batch, *more)  # the clean images

    monkeypatch.setattr(Attacking, "attacked", fails)
    place, told, x, _ = run()
    images = torch.load(place / "adv_complete.pt", weights_only=True)
    assert ("not turned again, and stay as they are" in caplog.text) == (least == 99)
    assert torch.equal(images, x) == (least == 99)
    assert (told["external"] == told["clean_acc"]) == (least == 99), "it is the number of the images"
