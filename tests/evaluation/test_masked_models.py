"""Models that only look robust are flagged by name; an honestly trained one is not."""

import importlib.util

import pytest
import torch

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.data.datamodule import ImageData
from robustforge.evaluation.protocol import Protocol, Suite
from robustforge.evaluation.runner import Evaluation
from robustforge.reporting.result import make_result
from robustforge.types import Threat

from .masked import EPS, Noise, Slotted, Wrapped, fit, rounding, shattering, thermometer, training_attack

ATTACKS = {
    "noise": Noise(),
    "fgsm": FGSM(),
    "pgd": PGD(steps=20),
    "margin": PGD(name="pgd_margin", steps=20, loss="margin"),
}


@pytest.fixture(scope="session")
def digits():
    made = ImageData("digits", "digits", (1, 28, 28), 10, limit_test=150, eval_batch_size=150)
    made.setup()
    return made


@pytest.fixture(scope="session")
def plain(digits):
    return fit(digits, 4)


@pytest.fixture(scope="session")
def robust(digits, plain):
    """Adversarially trained, honestly: its gradients are what they seem."""
    return fit(digits, 6, training_attack(), start=plain, lr=2e-3)


@pytest.fixture
def judge(digits, tmp_path):
    """judge(defense, attacks): the result of a strict protocol with checks."""

    def call(defense, attacks, **changed):
        protocol = Protocol(**{
            "name": "strict", "suites": {"all": Suite(attacks, others=False)}, "budgets": (Threat("linf", EPS),),
            "checks": True, "strict": True, **changed,
        })  # fmt: skip
        evaluation = Evaluation(
            "d", defense, digits, protocol, tmp_path, tmp_path / "cells", {}, torch.device("cpu"), quiet=True
        )
        path, _ = evaluation.run()
        return make_result(path, {"defense": "d", "strict": protocol.strict, "norm": "linf", "eps": EPS})

    return call


def flags(result, attack, surface="end_to_end"):
    (cell,) = [c for c in result["cells"] if (c["system"], c["attack"], c["surface"]) == ("d", attack, surface)]
    return set(cell["violated"])


def test_an_honestly_trained_model_is_not_flagged(judge, robust):
    result = judge(Wrapped(robust), ATTACKS)
    assert {c["attack"]: c["violated"] for c in result["cells"] if c["violated"]} == {}
    (worst,) = [c for c in result["worst_case"] if c["system"] == "d"]
    assert worst["verdict"] == "robust accuracy"
    assert 40 < worst["accuracy"] < 90
    tried = {one["name"] for one in worst["indicators"]}
    assert {
        "identity_at_zero",
        "unbounded_breaks",
        "monotone_in_steps",
        "loss_moved",
        "zero_gradients",
        "restarts_agree",
    } <= tried


def test_an_undefended_model_is_broken_and_not_flagged(judge, plain):
    result = judge(Wrapped(plain), ATTACKS)
    assert not any(c["violated"] for c in result["cells"])
    assert result["objective"] < 40


@pytest.mark.parametrize(
    ("before", "names"),
    [
        (rounding, {"zero_gradients", "loss_moved", "unbounded_breaks"}),
        (thermometer, {"zero_gradients", "loss_moved", "unbounded_breaks"}),
        (shattering, {"loss_moved", "unbounded_breaks"}),
    ],
    ids=["rounding", "thermometer", "shattering"],
)
def test_a_preprocessor_that_hides_gradients_is_flagged(judge, plain, before, names):
    result = judge(Wrapped(plain, before), ATTACKS)
    for attack in ("pgd", "pgd_margin"):
        assert flags(result, attack) == names
    (worst,) = [c for c in result["worst_case"] if c["system"] == "d"]
    assert worst["accuracy"] > 80  # which is what such a model would be praised for
    assert (worst["verdict"], set(worst["violated"])) == ("unreliable", names)
    assert result["objective_of"]["attack"] == "worst_case"


def test_scaled_logits_are_flagged_where_they_mask_and_not_where_they_do_not(judge, plain):
    masked = judge(Wrapped(plain, scale=1e4), {"fgsm": FGSM(), "pgd": PGD(steps=20)})
    assert flags(masked, "pgd") == {"zero_gradients", "loss_moved", "unbounded_breaks"}
    assert flags(masked, "fgsm") == {"zero_gradients"}
    (worst,) = masked["worst_case"]
    assert (worst["verdict"], worst["accuracy"] > 80) == ("unreliable", True)


def test_a_margin_sees_through_scaled_logits(judge, plain):
    result = judge(Wrapped(plain, scale=1e4), ATTACKS)
    assert flags(result, "pgd") >= {"zero_gradients", "loss_moved"}
    assert flags(result, "pgd_margin") == set()
    (worst,) = result["worst_case"]
    assert (worst["verdict"], worst["accuracy"] < 40) == ("robust accuracy", True)  # low, and well supported


def test_a_surface_blind_to_what_decides_is_flagged(judge, plain):
    result = judge(Slotted(plain), {"pgd": PGD(steps=20)})
    assert "white_box_not_weaker_than_black_box" in flags(result, "pgd")
    (worst,) = [c for c in result["worst_case"] if c["system"] == "d"]
    assert worst["verdict"] == "unreliable"
    assert worst["accuracy"] < 40  # the transfer counts, all the same


MASKED = {"rounding": {"before": rounding}, "shattering": {"before": shattering}, "scaled": {"scale": 1e4}}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("robustforge.attacks.square") is None, reason="needs Square")
@pytest.mark.parametrize("name", MASKED)
def test_the_adaptive_protocol_breaks_masked_models(compose, judge, plain, name):
    """With the attacks that conf/protocol/adaptive.yaml names: Square needs no gradient."""
    from robustforge.config.instantiate import build

    protocol = build(compose("protocol=adaptive").protocol)
    result = judge(
        Wrapped(plain, **MASKED[name]),
        {},
        suites={"score": protocol.suites["score"]},
        strict=protocol.strict,
        n_test=50,
    )
    (worst,) = [c for c in result["worst_case"] if c["system"] == "d"]
    assert worst["accuracy"] < 40
