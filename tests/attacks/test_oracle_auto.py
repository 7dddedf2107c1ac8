"""APGD, APGD-T, FAB-T and Square against torchattacks at the same settings, on a plain and on a hardened network."""

from statistics import mean

import pytest
import torch
import torch.nn.functional as F
import torchattacks

from robustforge.attacks.apgd import APGD
from robustforge.attacks.fab import FAB
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.defenses.base import classify
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Threat

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EXACT = {"precision": "float32"}
NORMS = {"linf": "Linf", "l2": "L2"}
BUDGETS = {("plain", "linf"): 0.05, ("plain", "l2"): 0.6, ("hardened", "linf"): 0.15, ("hardened", "l2"): 1.5}
# ours, theirs, and over how many seeds: single runs of the random ones differ by several images, here as there
PAIRS = {
    "apgd_ce": (APGD(steps=30, **EXACT), lambda m, **k: torchattacks.APGD(m, steps=30, loss="ce", **k), 6),
    "apgd_dlr": (APGD(steps=30, loss="dlr", **EXACT), lambda m, **k: torchattacks.APGD(m, steps=30, loss="dlr", **k), 6),
    "apgd_t": (
        APGD(steps=20, loss="dlr", n_target_classes=9, **EXACT),
        lambda m, **k: torchattacks.APGDT(m, steps=20, n_classes=10, **k), 4,
    ),
    "fab_t": (FAB(steps=20, **EXACT), lambda m, **k: torchattacks.FAB(m, steps=20, multi_targeted=True, **k), 1),
    "square": (Square(n_queries=400), lambda m, **k: torchattacks.Square(m, n_queries=400, **k), 4),
}  # fmt: skip


@pytest.fixture(scope="module")
def networks(digits, trained):
    """The plain classifier, and one trained on PGD's images for a few seconds."""
    torch.manual_seed(0)
    network = small_cnn((1, 28, 28), 10, (0.3,), (0.3,), widths=(8, 16), hidden=32)
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    x, y = digits.train.images.float() / 255, digits.train.labels
    attack, surface = PGD(steps=5, early_stop=False, **EXACT), classify(network)["end_to_end"]
    for epoch in range(12):
        for rows in torch.randperm(len(y)).split(64):
            x_adv = attack(surface, x[rows], y[rows], Threat("linf", 0.15 * min(1, epoch / 6)), index=rows).x_adv
            optimizer.zero_grad()
            F.cross_entropy(network(x_adv), y[rows]).backward()
            optimizer.step()
    return {"plain": trained, "hardened": network.eval()}


def standing(network, x, y, x_adv, norm, eps):
    """Robust accuracy in per cent; images outside the ball do not count as fooled."""
    delta = (x_adv - x).flatten(1)
    inside = (delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)) <= eps * (1 + 1e-4)
    return 100 * float(((network(x_adv).argmax(1) == y) | ~inside).float().mean())


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("kind", "norm"), BUDGETS)
def test_no_weaker_than_torchattacks(digits, networks, name, kind, norm):
    network, eps = networks[kind], BUDGETS[kind, norm]
    x, y = digits.test.images.float() / 255, digits.test.labels
    attack, oracle, seeds = PAIRS[name]
    surface, threat = classify(network)["end_to_end"], Threat(norm, eps)
    ours, theirs = [], []
    for seed in range(seeds):
        ours.append(standing(network, x, y, attack(surface, x, y, threat, seed=seed).x_adv, norm, eps))
        theirs.append(standing(network, x, y, oracle(network, norm=NORMS[norm], eps=eps, seed=seed)(x, y), norm, eps))
    print(f"{name} {kind} {norm}: ours {mean(ours):.2f}, torchattacks {mean(theirs):.2f}")
    assert 1 < mean(theirs) < 99  # or nothing is compared
    assert mean(ours) <= mean(theirs) + 0.5
