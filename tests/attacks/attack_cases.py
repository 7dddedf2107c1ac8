"""What the tests of attacks share: attacks with few steps, networks, images and properties."""

from functools import cache

import torch
from torch import nn

from robustforge.attacks.apgd import APGD
from robustforge.attacks.bim import BIM
from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.fab import FAB
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.defenses.base import classify
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import DefenseOutput, Threat

EXACT = {"precision": "float32"}
GRADIENT = [
    FGSM(), FGSM("fgsm last", early_stop=False, loss="margin"), BIM(steps=3),
    BIM("bim last", steps=2, step_size=0.7, early_stop=False), PGD(steps=3, restarts=2),
    PGD("pgd last", steps=2, early_stop=False, loss="margin"), PGD("pgd bf16", steps=2, precision="bf16"),
]  # fmt: skip
AUTO = [
    APGD("ce", steps=9, restarts=2, **EXACT), APGD("t", steps=9, loss="dlr", n_target_classes=3, restarts=2, **EXACT),
    APGD("give up", steps=30, loss="margin", give_up=True, **EXACT), FAB(steps=4, restarts=2, n_target_classes=3, **EXACT),
    FAB("fab give up", steps=12, n_target_classes=2, give_up=True, **EXACT), Square(n_queries=90, restarts=2),
    Square("square give up", n_queries=620, give_up=True),
]  # fmt: skip
THREATS = [Threat("l2", 28.0), Threat("l2", 0.7), Threat("linf", 0.1), Threat("linf", 1.0)]


@cache
def random_network(shape, classes):
    torch.manual_seed(1)
    return small_cnn(shape, classes, (0.5,) * shape[0], (0.25,) * shape[0], (4, 8), 16).eval()


def random_case(shape, classes=10, seed=0):
    """A random network, images with many pixels at exactly 0 and 1, and labels that the network gets right."""
    network = random_network(shape[1:], classes)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).mul(1.6).sub(0.3).clamp(0, 1)
    return classify(network)["end_to_end"], x, network(x).argmax(1)


def linear(weight, bias):
    """A linear classifier of flattened images as a surface."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    network = nn.Sequential(nn.Flatten(), layer)
    return end_to_end(lambda x: DefenseOutput(network(x)), network)


def linear_case(classes=4, count=6):
    """A linear classifier, gray images well inside the box, labels, and exact distances (L2, L-infinity, L1)."""
    generator = torch.Generator().manual_seed(3)
    weight = 0.1 * torch.randn(classes, 36, generator=generator)
    x = 0.5 + 0.02 * torch.randn(count, 1, 6, 6, generator=generator)
    logits = x.flatten(1) @ weight.T
    bias = 0.5 * torch.rand(classes, generator=generator) - logits.mean(0)
    logits = logits + bias
    y = logits.argmax(1)
    gaps = logits.gather(1, y[:, None]) - logits
    slopes = weight[None] - weight[y][:, None]
    gaps = gaps.masked_fill(gaps == 0, float("inf"))
    exact = {"l2": (gaps / slopes.norm(dim=2)).amin(1), "linf": (gaps / slopes.abs().sum(2)).amin(1)}
    exact["l1"] = (gaps / slopes.abs().amax(2)).amin(1)  # as long as no value hits the box
    return linear(weight, bias), x, y, exact


def distance(x_adv, x, norm):
    delta = x_adv - x
    if norm == "l0_pixels":
        delta = delta.abs().sum(1)
    order = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0, "l0_pixels": 0}[norm]
    return torch.linalg.vector_norm(delta.flatten(1), order, dim=1)


def check_result(result, surface, x, y, threat):
    """Dtype, range, ball, and a verdict that is the system's on the images as returned."""
    assert result.x_adv.dtype == torch.float32
    assert result.x_adv.shape == x.shape
    assert result.x_adv.isfinite().all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    assert (distance(result.x_adv, x, threat.norm) <= threat.eps + 1e-5 * max(1, threat.eps)).all()
    assert torch.equal(result.success, surface.system(result.x_adv, y).logits.argmax(1) != y)


def check_properties(attack, shapes=((3, 1, 28, 28), (1, 1, 28, 28), (2, 3, 17, 23)), threats=THREATS):
    """Ball, range, identity without a budget, images that are wrong already, constant logits, two classes, no images."""
    for shape in shapes:
        surface, x, y = random_case(shape)
        for threat in threats:
            before = x.clone()
            check_result(attack(surface, x, y, threat), surface, x, y, threat)
            assert torch.equal(x, before)
        for norm in {threat.norm for threat in threats}:
            still = attack(surface, x, y, Threat(norm, 0.0))
            assert torch.equal(still.x_adv, x)
            assert still.backwards.sum() == 0
            assert not still.success.any()
    surface, x, y = random_case((4, 1, 12, 12), classes=2)
    check_result(attack(surface, x, y, threats[0]), surface, x, y, threats[0])
    wrong = torch.tensor([True, False, True, False])
    result = attack(surface, x, torch.where(wrong, 1 - y, y), threats[0])
    assert torch.equal(result.x_adv[wrong], x[wrong])
    assert result.success[wrong].all()
    assert result.backwards[wrong].sum() == 0
    constant = linear(torch.zeros(3, 144), torch.tensor([1.0, 0.0, 0.0]))
    zeros = torch.zeros(4, dtype=torch.int64)
    result = attack(constant, x, zeros, threats[0])
    check_result(result, constant, x, zeros, threats[0])
    assert not result.success.any()
    assert attack(surface, x[:0], y[:0], threats[0]).x_adv.shape == (0, 1, 12, 12)


def check_independence(attack, surface, x, y, threat, tolerance=1e-3, pixels=None, sizes=(3,)):
    """Whatever the batch, its order and the global generator: the same verdicts, and distances up to float ties.

    With ``pixels``, more than this share of them is the same too: a sum in another order may flip the sign of a
    gradient, or a proposal's fate, that is all but zero.
    """
    index = torch.arange(100, 100 + len(x))
    whole = attack(surface, x, y, threat, index=index, seed=3)
    torch.manual_seed(9)
    again = attack(surface, x, y, threat, index=index, seed=3)
    for name in ("x_adv", "success", "forwards", "backwards"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
    back = attack(surface, x.flip(0), y.flip(0), threat, index=index.flip(0), seed=3)
    others = [(back.x_adv.flip(0), back.success.flip(0), None)]
    for size in sizes:
        parts = zip(x.split(size), y.split(size), index.split(size), strict=True)
        parts = [attack(surface, *part[:2], threat, index=part[2], seed=3) for part in parts]
        others.append(
            [torch.cat([getattr(part, name) for part in parts]) for name in ("x_adv", "success", "backwards")]
        )
    norm = distance(whole.x_adv, x, threat.norm)
    for x_adv, success, backwards in others:
        assert torch.equal(success, whole.success)
        if pixels is None:
            assert (distance(x_adv, x, threat.norm) - norm).abs().max() <= tolerance * max(1, norm.max())
        else:
            assert ((x_adv - whole.x_adv).abs() < 1e-5).float().mean() > pixels
        if pixels is not None and pixels > 0.99 and backwards is not None:
            assert torch.equal(backwards, whole.backwards)
    return whole
