"""What the tests of minimum-norm, sparse, decision-based and noise attacks share: networks, images and properties."""

import torch
from torch import nn

from robustforge.attacks.core.surface import end_to_end
from robustforge.defenses.base import classify
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import DefenseOutput, Threat

THREATS = [Threat("l2", 28.0), Threat("l2", 0.7), Threat("linf", 0.1), Threat("linf", 1.0)]


def random_case(shape, classes=10, seed=0):
    """A random network, images with many pixels at exactly 0 and 1, and labels that the network gets right."""
    torch.manual_seed(1)
    network = small_cnn(shape[1:], classes, (0.5,) * shape[1], (0.25,) * shape[1], (4, 8), 16).eval()
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
    """A linear classifier, gray images well inside the box, labels, and exact distances (L2, L-infinity)."""
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
    return linear(weight, bias), x, y, exact


def distance(x_adv, x, norm):
    delta = (x_adv - x).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)


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
        for norm in ("l2", "linf"):
            still = attack(surface, x, y, Threat(norm, 0.0))
            assert torch.equal(still.x_adv, x)
            assert still.backwards.sum() == 0
            assert not still.success.any()
    surface, x, y = random_case((4, 1, 12, 12), classes=2)
    check_result(attack(surface, x, y, THREATS[0]), surface, x, y, THREATS[0])
    wrong = torch.tensor([True, False, True, False])
    result = attack(surface, x, torch.where(wrong, 1 - y, y), THREATS[0])
    assert torch.equal(result.x_adv[wrong], x[wrong])
    assert result.success[wrong].all()
    assert result.backwards[wrong].sum() == 0
    constant = linear(torch.zeros(3, 144), torch.tensor([1.0, 0.0, 0.0]))
    zeros = torch.zeros(4, dtype=torch.int64)
    result = attack(constant, x, zeros, THREATS[0])
    check_result(result, constant, x, zeros, THREATS[0])
    assert not result.success.any()
    assert attack(surface, x[:0], y[:0], THREATS[0]).x_adv.shape == (0, 1, 12, 12)


def check_independence(attack, surface, x, y, threat, tolerance=1e-3):
    """Whatever the batch, its order and the global generator: the same verdicts, and distances up to float ties."""
    index = torch.arange(100, 100 + len(x))
    whole = attack(surface, x, y, threat, index=index, seed=3)
    torch.manual_seed(9)
    again = attack(surface, x, y, threat, index=index, seed=3)
    for name in ("x_adv", "success", "forwards", "backwards"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
    parts = zip(x.split(3), y.split(3), index.split(3), strict=True)
    parts = [attack(surface, *part[:2], threat, index=part[2], seed=3) for part in parts]
    back = attack(surface, x.flip(0), y.flip(0), threat, index=index.flip(0), seed=3)
    norm = distance(whole.x_adv, x, threat.norm)
    for other in (torch.cat([part.x_adv for part in parts]), back.x_adv.flip(0)):
        assert (distance(other, x, threat.norm) - norm).abs().max() <= tolerance * max(1, norm.max())
    assert torch.equal(torch.cat([part.success for part in parts]), whole.success)
    assert torch.equal(back.success.flip(0), whole.success)
    return whole
