"""Memory Defense under attack: what each surface differentiates, who judges, and what the diagnostics say."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustforge.attacks.fgsm import FGSM
from robustforge.defenses.memdef.stack import MemoryStack, StackOutput
from robustforge.types import Batch, Threat, UserError

WITHOUT_SLOT = {"end_to_end", "transfer"}


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("full", {"end_to_end", "slot_given", "selector", "soft_slot", "slot_aimed", "transfer"}),
        ("oracle_slot", {"end_to_end", "slot_given", "transfer"}),
        ("random_slot", {"end_to_end", "slot_given", "transfer"}),
        ("selector", WITHOUT_SLOT), ("no_memory", WITHOUT_SLOT), ("classifier", WITHOUT_SLOT),
    ],
)  # fmt: skip
def test_surfaces_of_each_variant_can_all_be_attacked(memdef, batch, variant, names):
    defense = memdef(variant=variant).eval()
    surfaces = defense.surfaces()
    assert set(surfaces) == names
    for name, surface in surfaces.items():
        assert surface.name == name
        result = FGSM(early_stop=False)(surface, batch.x, batch.y, Threat("linf", 0.1))
        assert (result.x_adv != batch.x).any()
        answer = defense.system.respond(result.x_adv, batch.y)
        assert torch.equal(result.success, answer.logits.argmax(1) != batch.y)
    assert set(defense.diagnostics(batch)) == (set() if names == WITHOUT_SLOT else {
        "agreement", "wrong_slot_followed", "wrong_slot_recovered", "true_slot_accuracy", "reconstruction_error",
    })  # fmt: skip


def test_answer(memdef, batch):
    defense = memdef().eval()
    out = defense(batch.x)
    inner = defense.stack(batch.x, defense.selector(batch.x).argmax(1))
    torch.testing.assert_close(out.logits, inner.logits)
    torch.testing.assert_close(out.purified, inner.rebuilt)
    by_hand = torch.stack([((r - x) ** 2).mean() for r, x in zip(inner.rebuilt, batch.x, strict=True)])
    torch.testing.assert_close(out.risk, by_hand)
    alone = memdef(variant="selector").eval()
    assert torch.equal(alone(batch.x).logits, alone.selector(batch.x))
    assert alone(batch.x).risk is None
    classifier = memdef(variant="classifier").eval()
    assert torch.equal(classifier(batch.x).logits, classifier.stack.classifier_b(batch.x))
    assert classifier(batch.x).risk.sum() == 0


def gradient_of(surface, x, y, parameters):
    x = x.clone().requires_grad_()
    views = surface.attacker_logits(x, y)
    # the true class's logit: the sum over classes could be flat
    value = views[0].gather(1, y[:, None]).sum()
    return torch.autograd.grad(value, [x, *parameters], allow_unused=True)


def test_soft_slot_reaches_the_selector_through_the_stack(memdef, batch):
    defense = memdef().eval()
    parameters = list(defense.selector.parameters())
    surfaces = defense.surfaces()
    soft = gradient_of(surfaces["soft_slot"], batch.x, batch.y, parameters)
    assert all(g is not None and g.isfinite().all() for g in soft)
    assert all(g.abs().sum() > 0 for g in soft)
    for name in ("end_to_end", "slot_given"):
        hard = gradient_of(surfaces[name], batch.x, batch.y, parameters)
        assert hard[0].abs().sum() > 0
        assert all(g is None for g in hard[1:])
    # the second view is the selector's own answer, and forwards the soft slot is the hard one
    logits, selected = surfaces["soft_slot"].attacker_logits(batch.x, batch.y)
    assert torch.equal(selected, defense.selector(batch.x))
    torch.testing.assert_close(logits, surfaces["end_to_end"].attacker_logits(batch.x, batch.y)[0])
    assert memdef(selector_weight=0.3).surfaces()["soft_slot"].weights == (1.0, 0.3)


def test_end_to_end_is_blind_to_how_the_selector_gets_its_answer(memdef, batch):
    defense = memdef().eval()
    first = {name: gradient_of(s, batch.x, batch.y, [])[0] for name, s in defense.surfaces().items()}
    last = defense.selector[-1]
    with torch.no_grad():  # another selector with the same argmax
        last.weight.mul_(3)
        last.bias.mul_(3)
    second = {name: gradient_of(s, batch.x, batch.y, [])[0] for name, s in defense.surfaces().items()}
    torch.testing.assert_close(first["end_to_end"], second["end_to_end"])
    assert not torch.allclose(first["soft_slot"], second["soft_slot"])


def test_surface_temperature(memdef, batch):
    warm, cold = (memdef(surface_temperature=t).eval() for t in (1.0, 0.1))
    gradients = [gradient_of(d.surfaces()["soft_slot"], batch.x, batch.y, [])[0] for d in (warm, cold)]
    assert not torch.allclose(*gradients)


def test_slot_given_opens_the_labels_slot_and_the_system_its_own(memdef, batch):
    defense = memdef().eval()
    other = (batch.y + 1) % 10
    surfaces = defense.surfaces()
    given = surfaces["slot_given"]
    for y in (batch.y, other):
        torch.testing.assert_close(given.attacker_logits(batch.x, y)[0], defense.stack(batch.x, y).logits)
    assert not torch.allclose(given.attacker_logits(batch.x, batch.y)[0], given.attacker_logits(batch.x, other)[0])
    for name in ("slot_given", "selector", "soft_slot", "end_to_end", "transfer"):
        assert torch.equal(surfaces[name].system(batch.x, batch.y).logits, surfaces[name].system(batch.x, other).logits)
    for name in ("selector", "soft_slot", "end_to_end", "transfer"):
        assert torch.equal(
            surfaces[name].attacker_logits(batch.x, batch.y)[0], surfaces[name].attacker_logits(batch.x, other)[0]
        )
    # the slot is recomputed on the image at hand
    before = given.system(batch.x, batch.y).logits
    defense.selector = _Constant((int(defense.selector(batch.x)[0].argmax()) + 1) % 10)
    after = defense.surfaces()["slot_given"].system(batch.x, batch.y).logits
    torch.testing.assert_close(after, defense.stack(batch.x, torch.full_like(batch.y, defense.selector.answer)).logits)
    assert not torch.allclose(before, after)


class _Constant(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return F.one_hot(torch.full((len(x),), self.answer), 10).float()


def test_oracle_slot(memdef, batch):
    defense = memdef(variant="oracle_slot").eval()
    for surface in defense.surfaces().values():
        for y in (batch.y, (batch.y + 3) % 10):
            torch.testing.assert_close(surface.system(batch.x, y).logits, defense.stack(batch.x, y).logits)
    assert torch.equal(defense.system.slots(batch.x), defense.selector(batch.x).argmax(1))  # nobody told it the label


def test_random_slot_is_a_function_of_the_image(memdef):
    defense = memdef(variant="random_slot").eval()
    x = torch.randint(0, 256, (2000, 1, 28, 28), generator=torch.Generator().manual_seed(0)).float() / 255
    slots = defense.system.slots(x, torch.zeros(2000, dtype=torch.int64))
    assert torch.equal(defense.system.slots(x), slots)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(defense.system.slots(x[order]), slots[order])
    assert torch.equal(torch.cat([defense.system.slots(part) for part in x.split(7)]), slots)
    assert torch.equal(defense.system.slots(x.contiguous(memory_format=torch.channels_last)), slots)
    shares = slots.bincount(minlength=10) / 2000
    assert shares.min() > 0.07
    assert shares.max() < 0.13


class _Rigged(nn.Module):
    """A stack that answers what the function of the slots says, and rebuilds the image as it is."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, slots, noise=None, others=False):
        return StackOutput(9.0 * F.one_hot(self.answer(slots), 10), x - 0.5)


def test_diagnostics_of_rigged_stacks(memdef, batch):
    defense = memdef().eval()
    defense.selector = _Constant(4)

    def figures(answer):
        defense.stack = _Rigged(answer)
        return {name: float(v.mean()) for name, v in defense.diagnostics(batch).items()}

    repeats = figures(lambda slots: slots)
    assert repeats == {
        "agreement": 1, "wrong_slot_followed": 1, "wrong_slot_recovered": 0, "true_slot_accuracy": 1,
        "reconstruction_error": pytest.approx(0.25),
    }  # fmt: skip
    corrects = figures(lambda slots: batch.y)
    assert corrects["wrong_slot_followed"] == 0
    assert corrects["wrong_slot_recovered"] == corrects["true_slot_accuracy"] == 1
    assert corrects["agreement"] == pytest.approx((batch.y == 4).float().mean().item())


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_slot_opened_on_purpose_is_always_wrong_and_takes_turns(memdef, classes):
    seen = []
    defense = memdef(num_classes=classes, memory_size=classes * 2).eval()
    defense.stack = _Rigged(lambda slots: seen.append(slots) or slots)
    y = torch.arange(600) % classes
    defense.diagnostics(Batch(torch.rand(600, 1, 28, 28), y, torch.arange(600) // classes))
    wrong = seen[0]
    assert (wrong != y).all()
    assert wrong.min() == 0
    assert wrong.max() == classes - 1
    pairs = torch.bincount(y * classes + wrong, minlength=classes**2).view(classes, classes)
    assert (pairs.fill_diagonal_(1) > 0).all()


def test_ablated_stacks(batch):
    for part, names in (("classifier", {"classifier_b"}), ("no_memory", {"classifier_b", "encoder", "decoder"})):
        stack = MemoryStack((1, 28, 28), 10, part=part).eval()
        assert {name for name, _ in stack.named_children()} == names
        outs = [stack(batch.x, slots) for slots in (batch.y, (batch.y + 1) % 10)]
        assert torch.equal(outs[0].logits, outs[1].logits)
        assert outs[0].weights is None
        torch.testing.assert_close(outs[0].logits, stack.classifier_b(outs[0].rebuilt))
    with pytest.raises(UserError, match="full, no_memory, classifier"):
        MemoryStack((1, 28, 28), 10, part="encoder")


def test_stack_with_others_rebuilds_from_all_other_slots(batch):
    torch.manual_seed(0)
    stack = MemoryStack((1, 28, 28), 10, memory_size=20).eval()
    out = stack(batch.x, batch.y, others=True)
    mine = F.one_hot(batch.y, 10).repeat_interleave(2, 1).bool()
    assert out.weights[~mine].abs().max() == 0
    assert out.other_weights[mine].abs().max() == 0
    torch.testing.assert_close(out.weights.sum(1) + out.other_weights.sum(1), torch.full((16,), 2.0))
    torch.testing.assert_close(out.other, stack.decoder(out.other_weights @ stack.memory.rows))
    assert stack(batch.x, batch.y).other is None


@pytest.mark.parametrize(("variant", "panels"), [("full", 3), ("no_memory", 1), ("selector", 0)])
def test_latents_without_and_with_memory(memdef, batch, variant, panels):
    defense = memdef(variant=variant).eval()
    if not panels:
        assert defense.figures() == {}
        return
    arrays = defense.figures()["latents"](_Scene(batch)).arrays
    assert len(arrays["spaces"]) == panels
    encoded = defense.stack.encoder(batch.x)
    torch.testing.assert_close(arrays["space0"], encoded)
    if panels == 3:
        torch.testing.assert_close(arrays["space1"], defense.stack.memory(encoded, batch.y).target)
        chosen = defense.selector(batch.x).argmax(1)
        torch.testing.assert_close(arrays["space2"], defense.stack.memory(encoded, chosen).target)


class _Scene:
    def __init__(self, batch):
        self.batch = batch

    def images(self, count):
        return self.batch.x[:count], self.batch.y[:count]
