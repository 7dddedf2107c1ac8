"""An evaluation of one's own model: the number, whether it is believed, and the same records as the command line's."""

import html
import json
import sys
from pathlib import Path

import numpy as np
import owned
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import robustforge as rf
from robustforge.attacks.core.attack import BaseAttack
from robustforge.types import DefenseOutput

EPS = 0.1
SUITE = "protocol.suites.standard.attacks"
SHORT = (
    "attack.steps=20", f"{SUITE}.auto.attacks.apgd_ce.steps=20", f"{SUITE}.auto.attacks.apgd_t.steps=10",
    f"{SUITE}.auto.attacks.apgd_t.n_target_classes=3", f"{SUITE}.auto.attacks.fab_t.steps=5",
    f"{SUITE}.auto.attacks.fab_t.n_target_classes=2", f"{SUITE}.auto.attacks.square.n_queries=50",
)  # fmt: skip
STANDARD = {"eps": EPS, "protocol": "standard", "overrides": SHORT, "progress": False, "checks_n": 60}
SMOKE = {"eps": EPS, "protocol": "smoke", "overrides": ("attack.steps=3",), "progress": False}


def same(one, two):
    """Whether two tables of records agree; NaN equals NaN."""
    pairs = [(one[name].to_numpy(), two[name].to_numpy()) for name in one.column_names]
    return one.column_names == two.column_names and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs
    )


def under_pgd(report):
    (cell,) = [cell for cell in report.result["cells"] if cell["attack"] == "pgd"]
    return cell["accuracy"]


@pytest.fixture(scope="session")
def honest(plain_network, images):
    return rf.evaluate(plain_network, images, **STANDARD)


def test_an_honest_model_is_believed(honest):
    assert honest.reliable
    assert honest.robust_accuracy == honest.upper_bound < honest.clean_accuracy
    low, high = honest.interval
    assert 0 <= low < honest.robust_accuracy < high <= 100
    assert honest.verdict.startswith("model, worst case L∞ 0.1: robust accuracy ")
    assert not [one["name"] for one in honest.indicators if one["violated"]]
    worst = honest.records.filter(np.array(honest.records["attack"]) == "auto")
    assert len(worst) >= 60


def test_a_masked_model_is_not(network, images, honest):
    """Logits times 1000 saturate the cross-entropy in float32: the same network, without its gradients."""
    network.scale = 1000.0
    masked = rf.evaluate(network, images, **STANDARD)
    assert masked.clean_accuracy == honest.clean_accuracy
    assert masked.robust_accuracy is None
    assert under_pgd(masked) > under_pgd(honest) + 20
    assert "unreliable" in masked.verdict
    assert "zero gradients" in masked.verdict
    assert {"zero_gradients", "loss_moved"} <= {one["name"] for one in masked.indicators if one["violated"]}
    assert str(masked).startswith(masked.verdict)
    assert "zero gradients: violated, more than 5 % of the attacked images" in " ".join(str(masked).split())


@pytest.mark.usefixtures("quiet_figures")
def test_the_command_line_gives_the_same_records(plain_network, images, honest, tmp_path, train_run):
    (x, y), test = owned.digits()[0], images
    torch.save(plain_network.state_dict(), tmp_path / "net.pt")
    arrays = {"x_train": x, "y_train": y, "x_test": test[0], "y_test": test[1]}
    np.savez(tmp_path / "mine.npz", **{name: values.numpy() for name, values in arrays.items()})
    run = train_run(
        "defense=pretrained", "defense.network._target_=owned.Small", f"defense.weights={tmp_path / 'net.pt'}",
        "dataset=npz", f"dataset.path={tmp_path / 'mine.npz'}", "dataset.shape=[1,8,8]", "dataset.num_classes=10",
        "protocol=standard", "protocol.n_test=null", "protocol.checks_n=60", f"threat.eps={EPS}", *SHORT,
    )  # fmt: skip
    assert run.objective == honest.robust_accuracy
    ours = honest.records.set_column(0, "system", [["pretrained"] * honest.records.num_rows])
    assert same(ours, run.records)


def test_what_is_saved_is_what_is_read(honest, tmp_path):
    folder = honest.save(tmp_path / "report")
    assert {path.name for path in folder.iterdir()} == {"result.json", "result.md", "records.parquet", "report.html"}
    again = rf.Report.load(folder)
    assert str(again) == str(honest)
    assert same(again.records, honest.records)
    page = (folder / "report.html").read_text()
    assert honest.verdict in page
    assert "zero gradients" in page
    assert "src=" not in page, "it needs no other file"
    assert honest.to_html(tmp_path / "one.html").read_text() == page
    assert html.escape(page) in honest._repr_html_(), "in a frame of its own"


def test_a_protocol_without_verdicts_says_so(network, images):
    report = rf.evaluate(network, images, n_test=10, **SMOKE)
    assert report.robust_accuracy is None
    assert report.upper_bound is not None
    assert "states no verdict: use protocol='standard'" in report.verdict
    clean = rf.evaluate(network, images, eps=EPS, protocol="clean", progress=False)
    assert clean.upper_bound is clean.interval is None
    assert clean.indicators == []
    assert "nothing is known" in clean.verdict


def test_data_in_every_form(network, images):
    whole = rf.evaluate(network, images, **SMOKE).records
    x, y = images
    data = TensorDataset(x, y)
    for form in (data, DataLoader(data, batch_size=17), (x.numpy(), y.tolist()), ((255 * x).round().byte(), y)):
        assert same(rf.evaluate(network, form, batch_size=60, **SMOKE).records, whole)
    with pytest.raises(rf.UserError, match="transform=ToTensor"):
        rf.evaluate(network, DataLoader([(object(), 0)]), **SMOKE)


def test_a_named_data_set_brings_its_budget():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    report = rf.evaluate(network, "digits", protocol="smoke", n_test=6, overrides=["attack.steps=2"], progress=False)
    assert report.result["worst_case"][0]["eps"] == 0.1
    assert report.result["n_test"] == 6


def test_thresholds_come_from_the_calibration_images(network, images):
    (x, y), _ = owned.digits()
    detector = rf.system(network, risk=lambda images: -network(images).softmax(1).amax(1))
    report = rf.evaluate(detector, images, calibration=(x[:200], y[:200]), n_test=20, **SMOKE)
    (threshold,) = report.result["thresholds"]
    assert threshold["rate"] == 0.05
    assert threshold["calibration_images"] == 200
    risks = -network.eval()(x[:200]).softmax(1).amax(1)
    assert float((risks > threshold["value"]).double().mean()) <= 0.05
    tight = rf.evaluate(
        detector, images, calibration=(x[:200], y[:200]), n_test=20, false_positive_rate=0.5, **SMOKE
    )  # fmt: skip
    assert tight.result["thresholds"][0]["value"] < threshold["value"]


class Counting(BaseAttack):
    calls = 0

    def perturb(self, session, seed):
        Counting.calls += 1
        return session.x


def test_a_folder_keeps_finished_work(network, images, tmp_path):
    settings = {**SMOKE, "overrides": (), "attack": Counting("counting"), "folder": tmp_path / "kept"}
    first = rf.evaluate(network, images, **settings)
    made, Counting.calls = Counting.calls, 0
    assert made
    again = rf.evaluate(network, images, **settings)
    assert Counting.calls == 0, "the same model, data and protocol"
    assert same(again.records, first.records)
    assert json.loads((tmp_path / "kept" / "result.json").read_text())["name"] == "model"
    rf.evaluate(lambda x: network(x), images, **settings)
    assert Counting.calls == made, "another function"
    rf.evaluate(lambda x: network(x), images, **settings)
    assert Counting.calls == made, "the same function, written again"
    with torch.no_grad():
        network.body[6].bias += 0.1
    rf.evaluate(network, images, **settings)
    assert Counting.calls == 2 * made, "other weights"


def test_a_defense_is_evaluated_by_its_own_surfaces(network, images):
    purifier = rf.system(network, purify=lambda x: (4 * x).round() / 4)
    report = rf.evaluate(purifier, images, n_test=10, name="rounding", **SMOKE)
    assert {"rounding", "undefended"} == set(report.records["system"].to_pylist())
    assert {"none", "end_to_end", "bpda"} == set(report.records["surface"].to_pylist())


class Wrapped(rf.Defense):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return DefenseOutput(self.network(x))


def test_classes_of_defenses_and_protocol_objects(network, images):
    from robustforge.evaluation.protocol import Protocol, Suite

    protocol = Protocol("mine", {"all": Suite({"pgd": rf.attacks.PGD(steps=2)})}, [rf.Threat("l2", 0.5)])
    report = rf.evaluate(Wrapped(network), images, protocol=protocol, n_test=5, progress=False)
    assert {(cell["norm"], cell["eps"]) for cell in report.result["worst_case"]} == {("l2", 0.5)}
    other = rf.evaluate(Wrapped(network), images, protocol=protocol, eps="1/4", n_test=5, progress=False)
    assert {(cell["norm"], cell["eps"]) for cell in other.result["worst_case"]} == {("linf", 0.25)}


def test_a_running_hydra_application_keeps_its_state(network, images, tmp_path):
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "mine.yaml").write_text("learning_rate: 3\n")
    with initialize_config_dir(config_dir=str(tmp_path), version_base="1.3"):
        rf.attack(network, *images, "pgd", eps=EPS, steps=1)
        assert GlobalHydra.instance().is_initialized()
        assert compose("mine").learning_rate == 3


def test_the_example_runs(monkeypatch, tmp_path, capsys):
    import runpy

    path = Path(__file__).resolve().parents[2] / "examples" / "attack_your_model.py"
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    assert "robust accuracy" in shown
    assert "unreliable" in shown
    assert (tmp_path / "report.html").exists()
    assert pq.read_table(tmp_path / "evaluation" / "records.parquet").num_rows
