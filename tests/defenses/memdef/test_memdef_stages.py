"""Memory Defense in training: which stages, which losses, which slots."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface
from robustforge.defenses.memdef import SelectorSettings, StackSettings
from robustforge.defenses.memdef.losses import memory_defense_terms
from robustforge.defenses.memdef.objective import selector_terms, training_slots
from robustforge.defenses.stages import CraftStage
from robustforge.types import AttackResult, Threat, UserError

VARIANTS = ("full", "no_memory", "classifier", "selector", "oracle_slot", "random_slot")


def outline(defense):
    return [(stage.name, stage.uses) for stage in defense.stages()]


def test_stages_of_every_selector(memdef):
    assert outline(memdef("clean")) == [("undefended", ()), ("stack", ())]
    assert outline(memdef("pgd")) == [("undefended", ()), ("selector", ("undefended",)), ("stack", ())]
    assert outline(memdef("offline")) == [
        ("undefended", ()), ("adversarial_set", ("undefended",)), ("selector", ("undefended", "adversarial_set")),
        ("stack", ()),
    ]  # fmt: skip
    assert outline(memdef("pgd", variant="selector"))[-1][0] == "selector"


def test_a_stack_that_sees_the_selector_depends_on_it(memdef):
    for selector, source in (("clean", "undefended"), ("pgd", "selector"), ("offline", "selector")):
        assert outline(memdef(selector, "adversarial"))[-1] == ("stack", (source,))
        assert outline(memdef(selector, {"slot": "selector"}))[-1] == ("stack", (source,))


def test_the_stacks_key_does_not_depend_on_who_attacks_it_later(memdef, described_stages):
    def stack(*arguments, **changed):
        return described_stages(memdef(*arguments, **changed))["stack"]

    settings = [stack(kind, surface_temperature=t) for kind, t in (("clean", 1.0), ("pgd", 1.0), ("pgd", 0.5))]
    assert settings[0] == settings[1] == settings[2]
    adversarial = [stack("pgd", "adversarial", surface_temperature=t) for t in (1.0, 0.5)]
    assert adversarial[0] != adversarial[1]
    for changed in ({"memory_size": 30}, {"shrink": "hard"}, {"first_kernel": 3}, {"dropout": 0.1}, {"sigmoid": True},
                    {"temperature": 0.1}, {"variant": "no_memory"}, {"variant": "classifier"}, {"threshold": 0.1},
                    {"stack": {"alpha": 0.1}}, {"stack": {"noise": 0.0}}, {"stack": {"wrong_slot": 0.1}}):  # fmt: skip
        assert stack("pgd", **changed) != settings[0]


@pytest.mark.parametrize("stack", [None, "adversarial", {"slot": "selector", "noise": 0.0}], ids=str)
@pytest.mark.parametrize("selector", ["clean", "offline", "pgd"])
def test_each_stage_trains_its_own_networks_only(memdef, batch, selector, stack):
    defense = memdef(selector, stack)
    for stage in defense.stages():
        if isinstance(stage, CraftStage):
            surface = stage.surface()
            assert isinstance(surface, Surface)
            assert torch.equal(surface.attacker_logits(batch.x, batch.y)[0], defense.undefended(batch.x))
            continue
        if stage.prepare:
            stage.prepare()
        defense.enter(stage)
        terms = stage.losses(batch)
        total = sum(terms.values())
        assert total.isfinite()
        total.backward()
        for name, module in defense.named_children():
            gradients = [p.grad for p in module.parameters()]
            if name in stage.trains:
                assert all(g is not None for g in gradients)
                assert any(g.abs().sum() > 0 for g in gradients)
            elif module is not getattr(defense, stage.trains[0]):
                assert all(g is None for g in gradients)
        metrics = stage.validate(batch)
        assert all(v.shape == (16,) and v.isfinite().all() for v in metrics.values())
        assert ("wrong_slot_followed" in metrics) is (stage.name == "stack")
        assert ("robust_accuracy" in metrics) is (stage.name == "selector")
        defense.zero_grad(set_to_none=True)


def test_the_selector_starts_as_a_copy_or_is_the_same(memdef):
    clean = memdef("clean")
    assert clean.selector is clean.undefended
    assert set(clean.systems()) == {"undefended"}
    robust = memdef("pgd")
    assert robust.selector is not robust.undefended
    assert set(robust.systems()) == {"undefended", "selector"}
    robust.stages()[1].prepare()
    pairs = list(zip(robust.selector.parameters(), robust.undefended.parameters(), strict=True))
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)


def test_offline_loss_is_half_and_half(memdef, batch):
    defense = memdef("offline").eval()
    terms = selector_terms(defense.selector, defense.undefended, defense.selector_settings, batch, 0)
    torch.testing.assert_close(terms["clean"], 0.5 * F.cross_entropy(defense.selector(batch.x), batch.y))
    torch.testing.assert_close(terms["adversarial"], 0.5 * F.cross_entropy(defense.selector(batch.x_adv), batch.y))


def test_clean_stack_loss_is_eq_13(memdef, batch):
    defense = memdef("pgd", {"noise": 0.0, "alpha": 0.3, "beta": 0.2, "gamma": 2.0}).eval()
    out = defense.stack(batch.x, batch.y, others=True)
    expected = memory_defense_terms(out, batch.x, batch.y, alpha=0.3, beta=0.2, gamma=2.0)
    torch.testing.assert_close(defense.stack_losses(batch), expected)
    assert set(expected) == {"classification", "reconstruction", "entropy", "non_target"}
    assert set(memdef("pgd", {"beta": 0.0}).stack_losses(batch)) == {"classification", "reconstruction", "entropy"}


def test_noise_is_on_the_encoders_input_alone(memdef, batch):
    defense = memdef("pgd", {"noise": 0.5}).eval()
    seen = {}
    defense.stack.encoder.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    torch.manual_seed(0)
    noise = torch.randn_like(batch.x)
    torch.manual_seed(0)
    terms = defense.stack_losses(batch)
    torch.testing.assert_close(seen["x"], batch.x + 0.5 * noise)
    rebuilt = defense.stack(batch.x, batch.y, 0.5 * noise).rebuilt
    torch.testing.assert_close(terms["reconstruction"], (batch.x - rebuilt).square().flatten(1).sum(1).mean())
    defense.system.respond(batch.x, batch.y)
    assert torch.equal(seen["x"], batch.x)


def test_attacked_stack_loss_rebuilds_the_clean_image(memdef, batch, monkeypatch):
    plan = {"attack": _Whiten(), "threat": Threat("linf", 0.5), "noise": 0.0, "beta": 0.0, "gamma": 1.0}
    defense = memdef("pgd", {**plan, "clean_weight": 0.25}).eval()
    defense.enter(defense.stages()[-1])
    defense.eval()
    terms = defense.stack_losses(batch)
    out = defense.stack(_white(batch.x), batch.y)
    torch.testing.assert_close(terms["attacked_classification"], 0.75 * F.cross_entropy(out.logits, batch.y))
    error = (batch.x - out.rebuilt).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(terms["attacked_reconstruction"], 0.75 * error)
    clean = F.cross_entropy(defense.stack(batch.x, batch.y).logits, batch.y)
    torch.testing.assert_close(terms["clean_classification"], 0.25 * clean)
    only = memdef("pgd", {**plan, "clean_weight": 0.0}).eval()
    only.enter(only.stages()[-1])
    assert set(only.stack_losses(batch)) == {"classification", "reconstruction", "entropy"}
    # half of the two epochs are a warm-up on clean images
    warming = memdef("pgd", {**plan, "attack_warmup": 0.5}).eval()
    warming.enter(warming.stages()[-1])
    assert "classification" in warming.stack_losses(batch)
    monkeypatch.setattr(type(warming), "current_epoch", property(lambda _: 1))
    assert "attacked_classification" in warming.stack_losses(batch)


@dataclass(frozen=True)
class _Whiten(Attack):
    name: str = "whiten"

    def __call__(self, surface, x, y, threat, *, index=None, seed=0, threshold=None):
        assert surface.name == "soft_slot"
        zero = torch.zeros(len(x), dtype=torch.int64)
        return AttackResult(_white(x), zero.bool(), zero, zero)


def _white(x):
    return (x + 0.5).clamp(max=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_adversarially(memdef, batch, variant):
    defense = memdef("pgd", "adversarial", variant=variant)
    stage = defense.stages()[-1]
    defense.enter(stage)
    sum(stage.losses(batch).values()).backward()
    assert any(p.grad is not None for p in getattr(defense, stage.trains[0]).parameters())


def test_bounds_are_measured_on_the_same_trained_stack(memdef, batch, described_stages):
    # full, oracle_slot and random_slot share the stack in the store, so that its training must not differ either
    losses = []
    for variant in ("full", "oracle_slot", "random_slot"):
        defense = memdef("pgd", "adversarial", variant=variant)
        stage = defense.stages()[-1]
        defense.enter(stage)
        torch.manual_seed(0)
        losses.append((described_stages(defense)["stack"], {k: float(v) for k, v in stage.losses(batch).items()}))
    assert losses[0] == losses[1] == losses[2]


def test_training_slots(memdef):
    x, y = torch.rand(4000, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(4000) % 10

    def slots_of(defense):
        return training_slots(defense.system, defense.stack_settings, x, y)

    assert torch.equal(slots_of(memdef()), y)
    torch.manual_seed(0)
    for share in (0.2, 1.0):
        slots = slots_of(memdef("pgd", {"wrong_slot": share}))
        assert (slots != y).float().mean() == pytest.approx(0.9 * share, abs=0.03)
        assert ((slots - y) % 10).bincount(minlength=10)[1:].min() > 0.08 * share * 4000
        assert slots.min() == 0
        assert slots.max() == 9
    chosen = memdef("pgd", {"slot": "selector"})
    assert torch.equal(slots_of(chosen), chosen.selector(x).argmax(1))
    mixed = slots_of(memdef("pgd", {"slot": "selector", "wrong_slot": 0.5}))
    assert (mixed == chosen.selector(x).argmax(1)).float().mean() == pytest.approx(0.55, abs=0.03)


def test_impossible_values(memdef, training):
    with pytest.raises(UserError, match="nearest sizes are 500 or 510"):
        memdef(memory_size=505)
    with pytest.raises(UserError, match="full, no_memory"):
        memdef(variant="half")
    with pytest.raises(UserError, match="clean, offline or pgd"):
        SelectorSettings("robust", training, None, Threat())
    with pytest.raises(UserError, match="label or selector"):
        StackSettings(training, slot="oracle")
    with pytest.raises(UserError, match="wrong_slot is 1.5"):
        StackSettings(training, wrong_slot=1.5)
    with pytest.raises(UserError, match=r"give stack\.threat"):
        StackSettings(training, attack=_Whiten())
