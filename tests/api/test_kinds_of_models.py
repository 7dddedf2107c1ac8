"""Every kind of model that people have."""

import functools
from collections import namedtuple

import owned
import pytest
import torch
from torch import nn

import robustforge as rf
from robustforge.attacks.core.models import modules_of
from robustforge.types import DefenseOutput

EPS = 0.1
SHORT = (
    "protocol.columns=worst",
    "attack.steps=3",
    "protocol.suites.standard.attacks.auto.attacks.square.n_queries=10",
)
Both = namedtuple("Both", "logits features")


def attacked(model, images, **settings):
    return rf.attack(model, *images, "pgd", eps=EPS, steps=10, progress=False, **settings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_types(network, images, dtype):
    result = attacked(network.to(dtype), images)
    plain = attacked(network.float(), images)
    assert result.x_adv.dtype == torch.float32
    assert network.body[0].weight.dtype == torch.float32
    assert abs(float(result.success.float().mean() - plain.success.float().mean())) <= 0.1


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda net: lambda x: (x.mean(), net(x)), 1),
        (lambda net: lambda x: {"scores": net(x), "other": x}, "scores"),
        (lambda net: lambda x: Both(net(x), x), "logits"),
        (lambda net: lambda x: [net(x)], 0),
    ],
    ids=["tuple", "dict", "namedtuple", "list"],
)
def test_answers_with_several_values(network, images, wrap, output):
    model = wrap(network)
    with pytest.raises(rf.UserError, match="say where the logits are, as in output="):
        attacked(model, images)
    assert torch.equal(attacked(model, images, output=output).x_adv, attacked(network, images).x_adv)
    with pytest.raises(rf.UserError, match="output='nowhere' is none of them"):
        attacked(model, images, output="nowhere")


def test_normalization_outside_the_network(network, images):
    inside = attacked(lambda x: network((x - 0.3) / 0.5), images)
    for mean, std in ((0.3, 0.5), ([0.3], [0.5])):
        assert torch.equal(attacked(network, images, mean=mean, std=std).x_adv, inside.x_adv)
    with pytest.raises(rf.UserError, match="both mean and std"):
        attacked(network, images, mean=0.3)
    with pytest.raises(rf.UserError, match="1 channels, mean 3"):
        attacked(network, images, mean=[0.3] * 3, std=[0.5] * 3)
    with pytest.raises(rf.UserError, match="positive"):
        attacked(network, images, mean=0.3, std=0)


class Holder:
    def __init__(self, network):
        self.parts = {"net": [network]}

    def __call__(self, x):
        return self.parts["net"][0](x)


def helper(network, x):
    return network(x)


def test_networks_are_found_wherever_they_are(network):
    inner = network.body
    for model in (
        network, lambda x: network(x), lambda x: (lambda y: network(y))(x), network.forward,
        functools.partial(helper, network), Holder(network), nn.Sequential(network),
        torch.no_grad()(lambda x: network(x)),
    ):  # fmt: skip
        assert any(part is network for found in modules_of(model) for part in found.modules())
    assert modules_of(lambda x: inner(network(x))) == [network]
    assert modules_of(lambda x: x.flatten(1)) == []


def test_torchvision_and_scripted_networks():
    from torchvision.models import resnet18

    x, y = torch.rand(2, 3, 32, 32), torch.tensor([0, 999])
    torch.manual_seed(0)
    assert rf.attack(resnet18(), x, y, "fgsm", eps="1/255").x_adv.shape == x.shape
    scripted = torch.jit.script(owned.trained(0).body)
    result = rf.attack(scripted, torch.rand(3, 1, 8, 8), torch.arange(3), "pgd", eps=EPS, steps=2)
    assert result.x_adv.shape == (3, 1, 8, 8)


def test_a_network_that_flattens_by_view_when_no_image_is_left(network, images):
    """``x.view(len(x), -1)`` is an error for no images, and nobody is asked about none once all are lost."""
    model = functools.partial(viewed, network)
    report = rf.evaluate(model, images, eps=1.0, protocol="standard", overrides=SHORT, checks_n=10, progress=False)
    assert report.robust_accuracy == 0
    assert report.records["skipped"].to_numpy().any()


def viewed(network, x):
    return network(x.view(len(x), -1).view(len(x), 1, 8, 8))


def test_every_attack_object_takes_a_bare_network(network, images):
    x, y = images[0][:4], images[1][:4]
    parts = {"pgd": rf.attacks.PGD(steps=2)}
    for attack in (
        rf.attacks.PGD(steps=2), rf.attacks.WorstCase("worst", parts),
        rf.attacks.Mixture(parts, {"pgd": rf.Threat("linf", EPS)}), rf.attacks.TorchAttack("PGD", {"steps": 2}),
    ):  # fmt: skip
        by_threat = attack(network, x, y, rf.Threat("linf", EPS))
        assert torch.equal(attack(lambda x: network(x), x, y, EPS).x_adv, by_threat.x_adv)
        assert float((by_threat.x_adv - x).abs().max()) <= EPS + 1e-5
    assert torch.equal(attack(network, x, y, "1/10").x_adv, by_threat.x_adv)


def test_systems_of_functions(network, images):
    x, _ = images
    noisy = rf.system(logits=network, purify=lambda x: (4 * x).round() / 4, risk=lambda x: x.flatten(1).std(1))
    output = noisy(x)
    assert isinstance(noisy, rf.Defense)
    assert torch.equal(output.logits, network.eval()((4 * x).round() / 4))
    assert torch.equal(output.risk, x.flatten(1).std(1))
    assert set(noisy.surfaces()) == {"end_to_end", "bpda"}
    blind = attacked(noisy, images)
    assert not blind.trace.zero_gradient.isnan().all()
    assert float(blind.trace.zero_gradient.nan_to_num(1).min()) == 1, "rounding has no gradient"
    around = attacked(noisy, images, surface="bpda")
    assert around.success.sum() > blind.success.sum()
    below = float(output.risk.min()) - 1
    assert not attacked(noisy, images, threshold=below).success.any(), "everything is rejected"
    with pytest.raises(rf.UserError, match="no surface 'end'"):
        attacked(noisy, images, surface="end")


def test_systems_say_what_is_wrong_with_their_parts(network, images):
    with pytest.raises(rf.UserError, match="purify must give images of the shape"):
        attacked(rf.system(network, purify=lambda x: x.flatten(1)), images)
    with pytest.raises(rf.UserError, match="risk must give one number"):
        attacked(rf.system(network, risk=lambda x: x), images)
    with pytest.raises(rf.UserError, match="must be callable"):
        rf.system(3)
    with pytest.raises(rf.UserError, match="leave them"):
        attacked(rf.system(network), images, output=0)
    with pytest.raises(rf.UserError, match="holds|answers"):
        attacked(lambda x: DefenseOutput(network(x), x.mean((1, 2, 3))), images)


def test_images_in_any_number_and_form(network, images):
    x, y = images
    whole = attacked(network, images)
    assert whole.success.shape == (60,)
    for size in (1, 7, 60):
        part = attacked(network, (x, y), batch_size=size)
        assert torch.equal(part.success, whole.success)
        assert (part.x_adv - whole.x_adv).abs().max() < 1e-3
    assert torch.equal(attacked(network, (x.numpy(), y.tolist())).x_adv, whole.x_adv)
    assert torch.equal(attacked(network, ((255 * x).round().to(torch.uint8), y.int())).x_adv, whole.x_adv)
    assert attacked(network, images, memory_gb=1e-4).x_adv.shape == x.shape
    with pytest.raises(rf.UserError, match="memory_gb is 0"):
        attacked(network, images, memory_gb=0)
    with pytest.raises(rf.UserError, match="batch_size is -1"):
        attacked(network, images, batch_size=-1)
    with pytest.raises(rf.UserError, match="no device 'cupboard'"):
        attacked(network, images, device="cupboard")


def test_traces_of_all_batches_are_joined(network, images):
    x, y = images
    right = network(x).argmax(1) == y
    order = torch.cat([right.nonzero()[:5, 0], torch.zeros(5, dtype=torch.long)])
    labels = torch.cat([y[order[:5]], (y[order[5:]] + 1) % 10])  # the second batch is wrong before anything is done
    result = rf.attack(network, x[order], labels, "pgd", eps=EPS, steps=2, batch_size=5)
    assert not result.trace.zero_gradient[:5].isnan().any()
    assert result.trace.zero_gradient[5:].isnan().all()
    assert result.success[5:].all()
