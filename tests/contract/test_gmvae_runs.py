"""The Gaussian-mixture VAE on its other data sets, and its own protocols, in tiny runs."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from robustforge.config.presets import find_preset

pytestmark = pytest.mark.usefixtures("quiet_figures")
SMALL = ("defense=gmvae", "model=lenet", "defense.width=0.125", "defense.detector.shared=true")
CLEAN = ("protocol=clean", "protocol.threshold=1.0")


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


CONF = Path(__file__).resolve().parents[2] / "conf"


def preset(*overrides):
    """What train.py runs for these overrides: the preset's first."""
    return (*find_preset(overrides, CONF).applied, *overrides)


def triple(run):
    return next(
        c["abstention"]["triple"] for c in run.result["cells"] if (c["system"], c["attack"]) == ("gmvae", "clean")
    )


def test_svhn_from_its_mat_files(train_run, tmp_path):
    """Files as they are published: columns first, the digit 0 written as 10."""
    for part, count in (("train", 60), ("test", 12)):
        digits = (np.arange(count) % 10 + 1)[:, None]
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels(32, 32, 3, count), "y": digits})
    run = train_run(*preset(*SMALL, *CLEAN, "dataset=svhn", f"paths.data_dir={tmp_path}"))
    assert run.cfg.defense.latent == 32
    assert run.cfg.defense.variance == pytest.approx(1 / 6000)
    assert set(run.records.column("label").to_pylist()) <= set(range(10))
    assert sum(part["percent"] for part in triple(run).values()) == pytest.approx(100)
    assert [stage["name"] for stage in run.result["stages"]] == ["undefended", "gmvae", "thresholds"]


def test_coil100_at_128_pixels_trains_its_first_step(train_run, tmp_path):
    """The paper's size and its hundred components, from the preset."""
    y = np.arange(200) % 100
    np.savez(
        tmp_path / "coil100.npz", x_train=pixels(200, 128, 128, 3), y_train=y, x_test=pixels(100, 128, 128, 3),
        y_test=y[:100],
    )  # fmt: skip
    run = train_run(*preset(*SMALL, *CLEAN, "dataset=coil100", f"paths.data_dir={tmp_path}", "dataset.batch_size=8"))
    assert list(run.cfg.dataset.shape) == [3, 128, 128]
    assert run.cfg.defense.alpha == 62700
    assert sum(part["percent"] for part in triple(run).values()) == pytest.approx(100)


def test_the_adapted_attack_and_the_judge_run(train_run):
    steps = "protocol.suites.adapted.attacks.constraints"
    run = train_run(
        *SMALL, "protocol=paper/gmvae_white_box", f"{steps}.steps=2", f"{steps}.restarts=2", f"{steps}.classes=2",
        "protocol.n_test=4",
    )  # fmt: skip
    found = {(c["surface"], c["norm"], round(c["eps"], 2)) for c in run.result["cells"] if c["attack"] == "constraints"}
    assert found == {("aimed", "linf", 0.1), ("aimed", "linf", 0.2), ("aimed", "linf", 0.3), ("aimed", "l2", 1.5),
                     ("aimed", "l2", 3.0)}  # fmt: skip
    run = train_run(
        *SMALL, "protocol=paper/gmvae_fooling", "defense.judge=true", "protocol.suites.paper.surfaces=[white_box,judged]",
        "protocol.suites.paper.attacks.fooling.steps=2", "protocol.n_test=4", name="fooling",
    )  # fmt: skip
    assert {c["surface"] for c in run.result["cells"] if c["attack"] == "fooling"} == {"white_box", "judged"}
    columns = {name: run.records.column(name).to_pylist() for name in ("attack", "surface", "index", "l2")}
    moved = {
        (surface, index): l2
        for attack, surface, index, l2 in zip(*columns.values(), strict=True)
        if attack == "fooling"
    }
    for (surface, index), l2 in moved.items():
        assert l2 == moved["white_box", index], f"{surface} judges other images"
