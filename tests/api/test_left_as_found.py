"""Whatever is done with a caller's model, it is the same model afterwards, and so is the caller's random state."""

import random

import numpy as np
import owned
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import robustforge as rf

QUICK = {"eps": 0.1, "steps": 3, "progress": False}
SMALL = {"eps": 0.1, "protocol": "smoke", "n_test": 8, "progress": False, "overrides": ["attack.steps=2"]}


class Angry(torch.nn.Module):
    """Breaks down at its third call, after it has changed its statistics."""

    def __init__(self, body):
        super().__init__()
        self.body, self.calls = body, 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += len(x)
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("broken")
        return self.body(x)


def found(network):
    """All that a caller could notice, as comparable values; the tensors themselves by identity and address."""
    parameters = {
        name: (id(p), p.data_ptr(), p.stride(), p.requires_grad, id(p.grad), p.detach().clone().tolist())
        for name, p in network.named_parameters()
    }
    gradients = {n: p.grad.clone().tolist() for n, p in network.named_parameters() if p.grad is not None}
    buffers = {name: (id(b), b.data_ptr(), b.clone().tolist()) for name, b in network.named_buffers()}
    modes = {name: module.training for name, module in network.named_modules()}
    return parameters, gradients, buffers, modes


def random_state():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@given(
    training=st.lists(st.booleans(), min_size=10, max_size=10),
    frozen=st.lists(st.booleans(), min_size=6, max_size=6),
    gradients=st.booleans(),
    call=st.sampled_from(["attack", "object", "function", "no_grad", "batches"]),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_attack_leaves_everything_as_it_was(network, images, training, frozen, gradients, call):
    x, y = images[0][:20].clone(), images[1][:20].clone()
    for module, mode in zip(network.modules(), training, strict=False):
        module.training = mode
    for parameter, flag in zip(network.parameters(), frozen, strict=False):
        parameter.requires_grad_(not flag)
        parameter.grad = torch.ones_like(parameter) if gradients else None
    before, state, given_x = found(network), random_state(), x.clone()
    if call == "attack":
        rf.attack(network, x, y, "pgd", **QUICK)
    elif call == "batches":
        rf.attack(network, x, y, "square", eps=0.1, n_queries=5, batch_size=7, progress=False)
    elif call == "object":
        rf.attacks.PGD(steps=3)(network, x, y, rf.Threat("linf", 0.1))
    elif call == "function":
        rf.attack(lambda images: network(2 * images), x, y, "pgd", **QUICK)
    else:
        with torch.no_grad():
            rf.attack(network, x, y, "apgd_ce", **QUICK)
    assert found(network) == before
    assert random_state() == state
    assert torch.equal(x, given_x)


@pytest.mark.parametrize("mode", [True, False])
def test_an_evaluation_leaves_everything_as_it_was(network, images, mode):
    network.train(mode)
    before, state = found(network), random_state()
    rf.evaluate(network, images, **SMALL)
    assert found(network) == before
    assert random_state() == state


@pytest.mark.parametrize("call", ["attack", "evaluate"])
def test_an_error_leaves_everything_as_it_was(network, images, call):
    angry = Angry(network.train())
    before, state = found(angry), random_state()
    with pytest.raises(RuntimeError, match="broken"):
        if call == "attack":
            rf.attack(angry, *images, "pgd", **QUICK)
        else:
            rf.evaluate(angry, images, **SMALL)
    assert angry.calls == 3
    assert found(angry) == before
    assert random_state() == state


def test_statistics_that_change_in_eval_mode_come_back(network, images):
    counting = Angry(network)
    counting.calls = 10
    rf.attack(counting, *images, "pgd", **QUICK)
    assert counting.calls > 10
    assert float(counting.seen) == 0


def test_functions_that_close_over_networks_are_frozen(network, images):
    """Dropout and batch statistics in training mode would make the answers depend on the batch."""
    network.train()
    one = rf.attack(lambda x: network(x), *images, "pgd", **QUICK)
    bound = rf.attack(network.forward, *images, "pgd", **QUICK)
    direct = rf.attack(network, *images, "pgd", **QUICK)
    assert network.training
    assert torch.equal(one.x_adv, direct.x_adv)
    assert torch.equal(bound.x_adv, direct.x_adv)


GLOBAL = owned.Small()


def test_globals_that_a_function_names_are_frozen(images):
    GLOBAL.train()
    before = found(GLOBAL)
    result = rf.attack(lambda x: GLOBAL(x), *images, "pgd", **QUICK)
    assert found(GLOBAL) == before
    assert torch.equal(result.x_adv, rf.attack(GLOBAL, *images, "pgd", **QUICK).x_adv)
