import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustforge.defenses.memdef import memory as mem
from robustforge.defenses.memdef.memory import MaskedMemory
from robustforge.nn.straight_through import straight_through_one_hot
from robustforge.types import UserError

B, N, D, K = 6, 12, 5, 3
S = N // K


def parts(**options):
    torch.manual_seed(0)
    return MaskedMemory(N, D, K, **options), torch.randn(B, D), torch.randint(0, K, (B,))


def reference(memory, z, slots, non_target=False):
    """Eqs. 8 to 12 by explicit loops in float64."""
    rows, z = memory.rows.detach().double().numpy(), z.double().numpy()
    weights = np.zeros((len(z), N))
    for b in range(len(z)):
        cosines = [z[b] @ r / max(np.linalg.norm(z[b]) * np.linalg.norm(r), 1e-8) for r in rows]
        address = np.exp(np.array(cosines) / memory.temperature)
        address /= address.sum()
        shrunk = address.copy()
        for i, w in enumerate(address):
            if memory.shrink == "hard":
                shrunk[i] = w if w > memory.threshold else 0
            elif memory.shrink == "memae":
                shrunk[i] = max(w - memory.threshold, 0) * w / (abs(w - memory.threshold) + 1e-12)
        keep = np.array([(i // S == int(slots[b])) != non_target for i in range(N)])
        row = shrunk * keep
        if row.sum() <= 1e-12:
            row = address * keep
        weights[b] = row / row.sum()
    return weights @ rows, weights


def test_cosine_is_pytorchs():
    memory, z, _ = parts()
    looped = torch.stack([F.cosine_similarity(z, row[None]) for row in memory.rows], 1)
    torch.testing.assert_close(mem.cosine_similarity(z, memory.rows), looped)
    assert mem.cosine_similarity(torch.zeros(1, D), memory.rows).eq(0).all()


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize(
    ("shrink", "threshold"), [("none", None), ("hard", None), ("hard", 0.08), ("memae", None), ("memae", 0.9)]
)
def test_reads_against_loops(shrink, threshold, temperature):
    memory, z, slots = parts(shrink=shrink, threshold=threshold, temperature=temperature)
    for got, other in ((memory(z, slots), False), (memory.non_target(z, slots), True)):
        target, weights = reference(memory, z, slots, other)
        np.testing.assert_allclose(got.weights.detach(), weights, atol=1e-6)
        np.testing.assert_allclose(got.target.detach(), target, atol=1e-6)
        torch.testing.assert_close(got.weights.sum(1), torch.ones(B))


@pytest.mark.parametrize("size", [1, 7, 40])
def test_open_rows_alone_give_the_general_answer_and_gradient(size):
    torch.manual_seed(1)
    memory = MaskedMemory(20, 8, 4, temperature=0.5)
    z, slots = torch.randn(size, 8, requires_grad=True), torch.randint(0, 4, (size,))
    quick = memory(z, slots)
    general = memory.read(memory.address(z), mem.slot_mask(slots, 20, 4))
    torch.testing.assert_close(quick, general)
    pull = torch.randn(size, 8)
    ask = [z, memory.rows]
    for a, b in zip(
        torch.autograd.grad((quick.target * pull).sum(), ask),
        torch.autograd.grad((general.target * pull).sum(), ask),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_default_thresholds_and_bound():
    assert parts(shrink="memae")[0].threshold == pytest.approx(1 / N)
    assert parts(shrink="hard")[0].threshold == 1e-4
    assert parts(shrink="memae", threshold=0.2)[0].threshold == 0.2
    memory = MaskedMemory(500, 1024, 10)
    assert memory.rows.numel() == 512_000
    assert memory.rows.abs().max() <= (6 / 1024) ** 0.5


def test_masks():
    hard = mem.slot_mask(torch.tensor([2, 0]), 6, 3)
    assert hard.tolist() == [[0, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 0]]
    soft = mem.slot_mask(torch.tensor([[0.2, 0.3, 0.5]]), 6, 3)
    torch.testing.assert_close(soft, torch.tensor([[0.2, 0.2, 0.3, 0.3, 0.5, 0.5]]))


def test_one_hot_slots_equal_hard_slots():
    for shrink in mem.SHRINKS:
        memory, z, slots = parts(shrink=shrink)
        torch.testing.assert_close(memory(z, F.one_hot(slots, K).float()), memory(z, slots))


@pytest.mark.parametrize("shrink", mem.SHRINKS)
def test_gradient_reaches_closed_slots_through_soft_slots(shrink):
    memory, z, _ = parts(shrink=shrink)
    logits = torch.randn(B, K, requires_grad=True)
    memory(z, straight_through_one_hot(logits)).target.square().sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad != 0).all()


def test_kept_norms_follow_the_rows():
    memory, z, slots = parts()
    memory.eval()
    with torch.no_grad():
        first = memory(z, slots)
        assert memory.norms() is memory.norms()
        memory.rows.copy_(torch.randn(N, D))
        again = memory(z, slots)
        assert not torch.equal(first.weights, again.weights)
        np.testing.assert_allclose(again.weights, reference(memory, z, slots)[1], atol=1e-6)
        memory.rows.data.mul_(torch.rand(N, 1))  # unseen by the version counter, but a change of mode forgets
        memory.train().eval()
        torch.testing.assert_close(memory.norms(), memory.rows.norm(dim=1))
        torch.testing.assert_close(copy.deepcopy(memory)(z, slots), memory(z, slots))


def test_norms_kept_in_inference_mode_serve_an_attacks_backward_pass():
    memory, z, slots = parts()
    memory.eval().requires_grad_(False)
    with torch.inference_mode():
        memory(z, slots)
    z.requires_grad_()
    memory(z, slots).target.sum().backward()
    assert z.grad is not None


def test_rows_get_their_whole_gradient_in_eval_mode():
    memory, z, slots = parts()
    memory.double().eval()

    def target(z, rows):
        return torch.func.functional_call(memory, {"rows": rows}, (z, slots)).target

    assert torch.autograd.gradcheck(target, (z.double().requires_grad_(), memory.rows))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_mem": 505}, "500 or 510"),
        ({"n_mem": 4}, "nearest sizes are 10"),
        ({"n_mem": 0}, "nearest sizes are 10"),
        ({"temperature": 0.0}, "positive"),
        ({"shrink": "soft"}, "none, hard, memae"),
        ({"threshold": -1.0}, "between 0 and 1"),
    ],
)
def test_errors_say_what_to_do(options, says):
    with pytest.raises(UserError, match=says):
        MaskedMemory(**{"n_mem": 500, "dim": 4, "n_classes": 10, **options})


def test_straight_through_values_gradient_and_temperature():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.3, 0.1, 0.2]], requires_grad=True)
    hard = straight_through_one_hot(logits, 0.5)
    assert hard.tolist() == [[0, 1, 0], [1, 0, 0]]
    pull = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 2.0]])
    (gradient,) = torch.autograd.grad((hard * pull).sum(), logits)
    p = (logits / 0.5).softmax(1).detach()
    torch.testing.assert_close(gradient, p * (pull - (p * pull).sum(1, keepdim=True)) / 0.5)
    with pytest.raises(UserError, match="positive"):
        straight_through_one_hot(logits, 0.0)
