"""The purifiers' base, the convolutional auto-encoder and what it is compared with, on generated images."""

import pytest
import torch
import torch.nn.functional as F

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.mixture import Mixture
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.defenses.purifier import Purifier, offline_attack, with_clean
from robustforge.types import Threat, UserError

SHAPE = (1, 28, 28)
THREAT = Threat("linf", 0.1)
ATTACKS = {"main": FGSM(early_stop=False)}
NAMES = ["ape_gan", "cae", "comdefend", "defense_gan", "defense_vae", "magnet", "pixel_defend", "puvae"]


# ---- the base -------------------------------------------------------------------------------------------------------


class Untouched(Purifier):
    """Rebuilds nothing, or adds noise when told to."""

    shape = None

    def rebuild(self, x, noise):
        return x if noise is None else (x + 0.1 * noise).clamp(0, 1)

    def purifier_stages(self):
        return []

    @property
    def noise_shape(self):
        return self.shape


@pytest.mark.parametrize("mode", [True, False])
def test_the_base_leaves_clean_images_alone_in_both_modes(model, training, batch, mode):
    defense = Untouched(model, training)
    defense.train(mode)
    output = defense(batch.x)
    assert torch.equal(output.purified, batch.x)
    assert torch.equal(output.logits, defense.undefended(batch.x))
    assert not output.risk.any()
    assert defense.training is mode
    assert set(defense.surfaces()) == {"end_to_end", "transfer", "bpda"}
    assert [stage.name for stage in defense.stages()] == ["undefended"]
    assert defense.diagnostics(batch)["clean_change"].sum() == 0
    for surface in defense.surfaces().values():
        assert torch.equal(surface.logits(batch.x, batch.y), output.logits)
    with pytest.raises(NotImplementedError, match="rebuild"):
        Purifier(model, training)(batch.x)
    with pytest.raises(UserError, match="at least 1"):
        Untouched(model, training, draws=0)


def test_deployed_noise_belongs_to_the_image_and_attackers_draw_their_own(model, training, batch):
    defense = Untouched(model, training, draws=4)
    defense.shape = SHAPE
    defense.leave()
    whole = defense(batch.x)
    assert 0.05 < (whole.purified - batch.x).std() < 0.1
    assert torch.equal(defense(batch.x[[3, 9]]).purified, whole.purified[[3, 9]])
    other = Untouched(model, training, seed=1)
    other.shape = SHAPE
    assert not torch.equal(other(batch.x).purified, whole.purified)
    surfaces = defense.surfaces()
    guess = surfaces["end_to_end"].logits(batch.x, batch.y)
    assert not torch.allclose(guess, whole.logits)
    # who knows the noise sees what the deployed system answers, whatever the image; with its risk
    known = surfaces["fixed_noise"]
    assert torch.equal(known.logits(batch.x, batch.y), whole.logits)
    assert torch.equal(known.logits(batch.x.flip(0) * 0.9, batch.y), defense(batch.x.flip(0) * 0.9).logits)
    assert torch.equal(known.answer(batch.x, batch.y).risk, whole.risk)
    assert (known.name, known.draws) == ("fixed_noise", 1)
    moved = batch.x.clone()
    moved[:, 0, 0, 0] = 0.123
    assert not torch.allclose(defense.noise(moved, "attacker"), defense.noise(batch.x, "attacker"))
    # four draws of the same image are four draws, and eot averages them
    repeated = defense.noise(batch.x.repeat(4, 1, 1, 1), "attacker", 4).view(4, 16, *SHAPE)
    assert all(not torch.equal(repeated[0], repeated[k]) for k in (1, 2, 3))
    logits, value = surfaces["eot"].evaluate(batch.x, batch.y, lambda z, y: F.cross_entropy(z, y, reduction="none"))
    by_hand = [defense.undefended((batch.x + 0.1 * noise).clamp(0, 1)) for noise in repeated]
    torch.testing.assert_close(logits, torch.stack(by_hand).mean(0), rtol=1e-4, atol=1e-5)
    losses = torch.stack([F.cross_entropy(z, batch.y, reduction="none") for z in by_hand])
    torch.testing.assert_close(value, losses.mean(0), rtol=1e-4, atol=1e-5)


def test_budgets_of_the_offline_set():
    attack, threat = offline_attack(ATTACKS, {}, THREAT)
    assert (attack, threat) == (ATTACKS["main"], THREAT)
    several = {**ATTACKS, "pgd": PGD()}
    attack, threat = offline_attack(several, {"pgd": 0.3}, THREAT)
    assert isinstance(attack, Mixture)
    assert {label: budget.eps for label, budget in attack.budgets.items()} == {"main": 0.1, "pgd": 0.3}
    assert threat == Threat("linf", 0.3)
    for attacks, budgets in (({}, {}), (ATTACKS, {"pgd": 0.1})):
        with pytest.raises(UserError, match="at least one attack"):
            offline_attack(attacks, budgets, THREAT)


def test_a_share_of_clean_inputs(batch):
    assert with_clean(batch, 0.0) is batch.x_adv
    assert torch.equal(with_clean(batch, 1.0), batch.x)
    torch.manual_seed(0)
    mixed = with_clean(batch, 0.5)
    clean = (mixed == batch.x).flatten(1).all(1)
    assert 3 <= clean.sum() <= 13
    assert torch.equal(mixed[~clean], batch.x_adv[~clean])


# ---- what is true of all eight -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_surfaces_are_judged_by_the_deployed_system(make_purifier, batch, name):
    defense = make_purifier(name)
    surfaces = defense.surfaces()
    assert {"end_to_end", "transfer", "bpda"} <= set(surfaces)
    deployed = defense(batch.x)
    assert torch.equal(defense(batch.x).logits, deployed.logits)
    labels = deployed.logits.argmax(1)
    for key, surface in surfaces.items():
        assert surface.name == key
        assert torch.equal(surface.system(batch.x, labels).logits, deployed.logits)
        result = FGSM(early_stop=False)(surface, batch.x, labels, Threat("linf", 0.3))
        assert torch.equal(result.success, defense(result.x_adv).logits.argmax(1) != labels), key
    transfer = FGSM(early_stop=False)(surfaces["transfer"], batch.x, batch.y, THREAT).x_adv
    alone = FGSM(early_stop=False)(classify(defense.undefended)["end_to_end"], batch.x, batch.y, THREAT).x_adv
    assert torch.equal(transfer, alone)


@pytest.mark.parametrize("name", NAMES)
def test_bpda_puts_the_identity_in_the_purifiers_place(make_purifier, batch, name):
    defense = make_purifier(name)
    x = batch.x.clone().requires_grad_(True)
    logits = defense.surfaces()["bpda"].logits(x, batch.y)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    with torch.no_grad():
        purified = defense.rebuild(batch.x, defense.noise(batch.x, "attacker"))
    leaf = purified.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(defense.head(leaf).square().sum(), leaf)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, defense.head(purified), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_trains_what_it_says(make_purifier, batch, name):
    defense = make_purifier(name)
    stages = defense.stages()
    assert stages[0].name == "undefended"
    for stage in stages[1:]:
        if not hasattr(stage, "losses"):
            assert (stage.name, stage.attack, stage.threat) == ("adversarial_set", ATTACKS["main"], THREAT)
            assert torch.equal(stage.surface().logits(batch.x, batch.y), defense.undefended(batch.x))
            continue
        if stage.prepare:
            stage.prepare()
        defense.enter(stage)
        terms = stage.losses(batch)
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
        trained = {key.split(".")[0] for key, p in defense.named_parameters() if p.grad is not None and p.grad.any()}
        without_weights = {"scale"}  # running statistics only
        late = {"generator"}  # has its turn after the critic's
        assert trained == set(stage.trains) - without_weights - late
        defense.zero_grad()
        defense.leave()
        assert stage.validate is None or all(len(v) == 16 for v in stage.validate(batch).values())
