"""FGSM, BIM and PGD: budgets, strength, and answers that depend on nothing but the arguments."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustforge.attacks.bim import BIM
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.none import NoAttack
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat, UserError

SHAPES = [(5, 1, 28, 28), (4, 3, 32, 32), (1, 1, 28, 28), (3, 3, 17, 23)]
ATTACKS = [
    FGSM(), FGSM(early_stop=False, loss="margin"), BIM(steps=3), BIM(steps=2, step_size=0.7, early_stop=False),
    PGD(steps=3, restarts=2), PGD(steps=2, early_stop=False, loss="margin"), PGD(steps=2, precision="bf16"),
]  # fmt: skip
NETWORKS = {}


def attacked(shape, seed=0):
    """A random network, images with many pixels at exactly 0 and 1, and labels that the network gets right."""
    if shape not in NETWORKS:
        torch.manual_seed(1)
        channels = shape[1]
        NETWORKS[shape] = small_cnn(shape[1:], 10, (0.5,) * channels, (0.25,) * channels, (4, 8), 16).eval()
    network = NETWORKS[shape]
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).mul(1.6).sub(0.3).clamp(0, 1)
    return classify(network)["end_to_end"], x, network(x).argmax(1)


@settings(max_examples=60, deadline=None)
@given(
    attack=st.sampled_from(ATTACKS), shape=st.sampled_from(SHAPES), norm=st.sampled_from(["linf", "l2"]),
    share=st.floats(0, 1), seed=st.integers(0, 1000),
)  # fmt: skip
def test_results_respect_the_budget_and_are_judged_as_returned(attack, shape, norm, share, seed):
    surface, x, y = attacked(shape, seed)
    eps = share if norm == "linf" else 8 * share
    before = x.clone()
    result = attack(surface, x, y, Threat(norm, eps), seed=seed)
    assert torch.equal(x, before)
    assert result.x_adv.dtype == torch.float32
    assert result.x_adv.shape == x.shape
    assert result.x_adv.isfinite().all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    delta = (result.x_adv - x).double().flatten(1)
    distance = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert (distance <= eps + 1e-5 * max(1, eps)).all()
    assert torch.equal(result.success, surface.system(result.x_adv, y).logits.argmax(1) != y)
    if eps == 0:
        assert torch.equal(result.x_adv, x)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_budget_is_the_identity(attack, norm):
    surface, x, y = attacked((5, 1, 28, 28))
    result = attack(surface, x, y, Threat(norm, 0.0))
    assert torch.equal(result.x_adv, x)
    assert result.backwards.sum() == 0
    assert not result.success.any()


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


@pytest.mark.parametrize("attack", [FGSM(precision="float32"), PGD(steps=5, restarts=2, precision="float32")], ids=str)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 1.0)])
def test_batch_size_and_order_do_not_matter(victim, images, attack, norm, eps):
    x, y = images[0][:29], images[1][:29]
    index, threat = torch.arange(100, 129), Threat(norm, eps)
    whole = attack(victim, x, y, threat, index=index, seed=3)
    for size in (1, 7):
        parts = [
            attack(victim, *part[:2], threat, index=part[2], seed=3)
            for part in zip(x.split(size), y.split(size), index.split(size), strict=True)
        ]
        joined = torch.cat([part.x_adv for part in parts])
        # a sum in another order may flip the sign of a gradient that is all but zero: a float tie
        assert ((joined - whole.x_adv).abs() < 1e-5).float().mean() > 0.998
        assert torch.equal(torch.cat([part.success for part in parts]), whole.success)
        assert torch.equal(torch.cat([part.backwards for part in parts]), whole.backwards)
    back = attack(victim, x.flip(0), y.flip(0), threat, index=index.flip(0), seed=3)
    assert ((back.x_adv.flip(0) - whole.x_adv).abs() < 1e-5).float().mean() > 0.998


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_repeated_bit_for_bit_whatever_the_global_generator_says(victim, images, attack):
    x, y = images[0][:16], images[1][:16]
    torch.manual_seed(0)
    first = attack(victim, x, y, Threat("linf", 0.1), seed=5)
    torch.manual_seed(1)
    second = attack(victim, x, y, Threat("linf", 0.1), seed=5)
    for name in ("x_adv", "success", "forwards", "backwards"):
        assert torch.equal(getattr(first, name), getattr(second, name))


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
