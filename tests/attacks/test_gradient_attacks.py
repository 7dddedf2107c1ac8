"""FGSM, BIM and PGD: strength, starts and settings."""

import pytest
import torch

from robustforge.attacks.bim import BIM
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.none import NoAttack
from robustforge.attacks.pgd import PGD
from robustforge.types import Threat, UserError


def test_no_attack_is_the_clean_error(victim, trained, images):
    x, y = images
    result = NoAttack()(victim, x, y, Threat("linf", 0.3))
    assert torch.equal(result.x_adv, x)
    assert torch.equal(result.success, trained(x).argmax(1) != y)
    assert result.forwards.sum() == result.backwards.sum() == 0


@pytest.mark.parametrize(("norm", "budgets"), [("linf", (0.02, 0.06, 0.12, 0.3)), ("l2", (0.2, 0.6, 1.2, 4.0))])
def test_larger_budgets_are_not_weaker(victim, images, norm, budgets):
    x, y = images
    falls = [int(PGD(steps=10)(victim, x, y, Threat(norm, eps)).success.sum()) for eps in budgets]
    assert falls == sorted(falls)
    assert falls[0] < 20
    assert falls[-1] == len(y)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 1.0)])
def test_iterating_beats_one_step_and_one_step_beats_noise(victim, images, norm, eps, loss):
    x, y = images
    threat = Threat(norm, eps)
    noise = PGD(steps=1, step_size=0.0)(victim, x, y, threat).success.sum()
    fgsm = FGSM(loss=loss)(victim, x, y, threat).success.sum()
    bim = BIM(steps=20, loss=loss)(victim, x, y, threat).success.sum()
    pgd = PGD(steps=20, loss=loss)(victim, x, y, threat).success.sum()
    assert noise < fgsm <= bim
    assert pgd >= fgsm


def test_one_full_step_of_bim_is_fgsm(victim, images):
    x, y = images
    for threat in (Threat("linf", 0.1), Threat("l2", 1.0)):
        one = BIM(steps=1, relative_step=1.0, early_stop=False)(victim, x, y, threat)
        assert torch.equal(one.x_adv, FGSM(early_stop=False)(victim, x, y, threat).x_adv)


def test_seed_index_and_restart_move_the_start_and_bim_has_none(victim, images):
    x, y = images[0][:8], images[1][:8]
    threat = Threat("linf", 0.1)
    still = PGD(steps=1, step_size=0.0, early_stop=False)
    base = still(victim, x, y, threat).x_adv
    assert (base != x).float().mean() > 0.4  # half of the noise on black pixels is cut off
    for other in (
        still(victim, x, y, threat, seed=1), still(victim, x, y, threat, index=torch.arange(8, 16)),
        PGD("pgd2", steps=1, step_size=0.0, early_stop=False)(victim, x, y, threat),
    ):  # fmt: skip
        assert (other.x_adv != base).float().mean() > 0.4
    none = BIM(steps=1, step_size=0.0, early_stop=False)(victim, x, y, threat, seed=1)
    assert torch.equal(none.x_adv, x)


def test_bf16_passes_are_judged_in_float32(victim, trained, images):
    x, y = images
    for early_stop in (True, False):
        result = PGD(steps=5, precision="bf16", early_stop=early_stop)(victim, x, y, Threat("linf", 0.08))
        assert torch.equal(result.success, trained(result.x_adv).argmax(1) != y)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # inside somebody's mixed-precision training
        within = PGD(steps=5, precision="bf16")(victim, x, y, Threat("linf", 0.08))
    assert torch.equal(within.success, trained(within.x_adv).argmax(1) != y)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (PGD, {"restarts": 0}), (PGD, {"steps": 0}), (BIM, {"steps": -1}), (FGSM, {"loss": "dlrr"}),
        (PGD, {"precision": "fp16"}), (BIM, {"step_size": -0.1}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_at_construction(kind, settings):
    with pytest.raises(UserError):
        kind(**settings)


def test_empty_batch(victim):
    result = PGD(steps=2)(victim, torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.int64), Threat())
    assert result.x_adv.shape == (0, 1, 28, 28)
    assert len(result.success) == len(result.forwards) == 0
