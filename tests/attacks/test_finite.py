"""Passes in bf16 whose values are no numbers are made again in float32; in float32 they are said."""

import pytest
import torch
from torch import nn

from robustforge.attacks.constraints import ConstraintDescent
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.detector_aware import DetectorAware
from robustforge.attacks.detector_cw import DetectorCW
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.defenses.base import classify
from robustforge.types import Threat, UserError


class OnlyFloat32(nn.Module):
    """Answers or differentiates to NaN wherever a product comes in bf16."""

    def __init__(self, network, where):
        super().__init__()
        self.network, self.where, self.probe = network, where, nn.Linear(1, 1)

    def forward(self, x):
        logits = self.network(x)
        if self.probe(x.flatten(1)[:, :1]).dtype != torch.bfloat16:
            return logits
        if self.where == "logits":
            return logits * float("nan")
        return logits + 0 * (x - x).flatten(1).sum(1, keepdim=True).sqrt()  # 0 forward, 0 * inf backward


@pytest.mark.parametrize("where", ["logits", "gradients"])
@pytest.mark.parametrize("kind", [PGD, Square, DetectorAware, DetectorCW, ConstraintDescent, DeepFool])
def test_bf16_gives_way_to_float32(trained, images, caplog, kind, where):
    x, y, threat = images[0][:16], images[1][:16], Threat("linf", 0.1)
    steps = {"n_queries": 10} if kind is Square else {"steps": 4}
    surface = classify(OnlyFloat32(trained, where))["end_to_end"]
    expected = kind(precision="float32", **steps)(surface, x, y, threat)
    assert not caplog.text
    result = kind(precision="bf16", **steps)(surface, x, y, threat)
    if kind is not Square or where == "logits":
        assert caplog.text.count("computed in float32") == 1
        assert torch.equal(result.x_adv, expected.x_adv)
        assert (result.forwards - expected.forwards).max() == 1  # the pass that was made again
    assert torch.equal(result.success, expected.success)


def test_bf16_that_works_is_kept(trained, images, caplog):
    seen = []
    trained_in = nn.Linear(1, 1)

    class Looks(nn.Module):
        def forward(self, x):
            seen.append(trained_in(x.flatten(1)[:, :1]).dtype)
            return trained(x)

    PGD(steps=3, precision="bf16")(classify(Looks())["end_to_end"], images[0][:4], images[1][:4], Threat("linf", 0.1))
    assert torch.bfloat16 in seen
    assert not caplog.text


def test_nan_gradients_in_float32_are_zero_and_said(trained, images, caplog):
    x, y = images[0][:6], images[1][:6]

    class Broken(nn.Module):
        def forward(self, x):
            bad = (x[:, :, :1, :1] - x[:, :, :1, :1]).sqrt()  # 0, with a gradient that is NaN for this one pixel
            return trained(x) + 0 * bad.flatten(1)

    attack = PGD(steps=2, precision="float32", early_stop=False)
    result = attack(classify(Broken())["end_to_end"], x, y, Threat("linf", 0.1))
    assert "12 gradients of an attack held NaN" in caplog.text
    assert result.x_adv.isfinite().all()
    assert (result.x_adv != x).any()


def test_logits_that_are_no_numbers_in_float32_are_refused(images):
    class Nothing(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * float("nan")

    for precision in ("bf16", "float32"):
        with pytest.raises(UserError, match="not finite"):
            PGD(precision=precision)(classify(Nothing())["end_to_end"], images[0][:2], images[1][:2] % 3, Threat())
