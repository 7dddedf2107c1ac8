"""The purifiers' base, the convolutional auto-encoder and what it is compared with, on generated images."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.mixture import Mixture
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.defenses.cae import ConvAutoEncoder
from robustforge.defenses.defense_gan import DefenseGAN
from robustforge.defenses.defense_vae import DefenseVAE
from robustforge.defenses.magnet import MagNet
from robustforge.defenses.purifier import Purifier, offline_attack, with_clean
from robustforge.defenses.puvae import PuVAE
from robustforge.losses.purification import bernoulli_error, gaussian_kl
from robustforge.nn.defense_vae import DefenseVAENetwork
from robustforge.nn.denoiser import Denoiser
from robustforge.nn.latent_search import LatentSearch
from robustforge.nn.magnet import SigmoidAutoencoder
from robustforge.nn.puvae import ConditionalVAE
from robustforge.nn.wgan import Critic, Generator
from robustforge.types import AttackResult, Batch, Threat, UserError

SHAPE = (1, 28, 28)
THREAT = Threat("linf", 0.1)
ATTACKS = {"main": FGSM(early_stop=False)}
BUILD = {
    "cae": lambda m, t, **k: ConvAutoEncoder(m, partial(Denoiser, SHAPE, (4, 8), 4), ATTACKS, THREAT, t, t, **k),
    "puvae": lambda m, t, **k: PuVAE(m, partial(ConditionalVAE, SHAPE, 10, 4, 4, 16), t, t, **{"draws": 2, **k}),
    "defense_gan": lambda m, t, **k: DefenseGAN(
        m, partial(Generator, SHAPE, 8, 4), partial(Critic, SHAPE, 4), LatentSearch(2, 3), t, t, **k
    ),
    "magnet": lambda m, t, **k: MagNet(
        m, partial(SigmoidAutoencoder, SHAPE, True), partial(SigmoidAutoencoder, SHAPE, False), t, t, **k
    ),
    "defense_vae": lambda m, t, **k: DefenseVAE(
        m, partial(DefenseVAENetwork, SHAPE, 8, 4), ATTACKS, THREAT, t, t, t, **k
    ),
}
NAMES = sorted(BUILD)


@pytest.fixture
def make(model, training):
    """make(name, **settings): a frozen purifier, in eval mode."""

    def call(name, **settings):
        torch.manual_seed(0)
        defense = BUILD[name](model, training, **settings)
        defense.leave()
        return defense

    return call


def stage_of(defense, name):
    return next(stage for stage in defense.stages() if stage.name == name)


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


# ---- what is true of all five ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_surfaces_are_judged_by_the_deployed_system(make, batch, name):
    defense = make(name)
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
def test_bpda_puts_the_identity_in_the_purifiers_place(make, batch, name):
    defense = make(name)
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
def test_every_stage_trains_what_it_says(make, batch, name):
    defense = make(name)
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
        assert stage.validate is None or set(stage.validate(batch)) >= {"accuracy"}


# ---- each of them ---------------------------------------------------------------------------------------------------


def test_cae_loss_by_hand(make, batch):
    defense = make("cae")
    defense.enter(stage_of(defense, "denoiser"))
    defense.denoiser.eval()  # so that the running deviation stands still
    torch.manual_seed(5)
    loss = defense.losses(batch)["mse"]
    torch.manual_seed(5)
    noise = torch.randn(16, *defense.denoiser.latent_shape)
    rebuilt = defense.denoiser(batch.x_adv, noise).detach().double()
    expected = ((rebuilt - batch.x.double()) ** 2).sum() / (16 * 784)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.item() != pytest.approx(F.mse_loss(defense.denoiser(batch.x_adv), batch.x).item(), rel=1e-6)


def test_cae_noise_is_off_at_inference_unless_asked(make, batch):
    quiet, noisy = make("cae"), make("cae", infer_noise=True, draws=3)
    noisy.load_state_dict(quiet.state_dict())
    assert torch.equal(quiet.purify(batch.x), quiet.denoiser(batch.x))
    assert set(quiet.surfaces()) == {"end_to_end", "transfer", "bpda"}
    assert not torch.equal(noisy.purify(batch.x), quiet.purify(batch.x))
    assert torch.equal(noisy.purify(batch.x), noisy.purify(batch.x))
    assert noisy.surfaces()["eot"].draws == 3


def test_cae_diagnostics_tell_a_decoder_from_a_denoiser(make, batch):
    """A purifier that answers with the label the attack was given is caught; one that ignores it is not."""
    defense = make("cae")
    batch = Batch(batch.x, defense.undefended(batch.x).argmax(1), batch.index)
    classes, wrong = torch.eye(10), (batch.y + 1 + batch.index % 9) % 10
    x_adv = defense.attack(classify(defense.undefended)["end_to_end"], batch.x, wrong, THREAT, index=batch.index).x_adv

    class Answers(nn.Module):
        def __init__(self, labels):
            super().__init__()
            self.labels = labels

        def forward(self, x):
            # the classifier behind is asked on one image only, for the number of classes
            return classes[self.labels] if len(x) == 16 else torch.zeros(len(x), 10)

    assert not torch.equal(x_adv, batch.x)
    for labels, decoded, ignored in ((wrong, 1.0, 0.0), (batch.y, 0.0, 1.0)):
        nothing = torch.zeros(16, dtype=torch.int64)
        defense.attack = lambda *_, **__: AttackResult(x_adv, nothing.bool(), nothing, nothing)  # noqa: B023
        defense.undefended = Answers(labels)
        found = defense.diagnostics(batch)
        assert (found["wrong_label_decoded"].mean(), found["wrong_label_ignored"].mean()) == (decoded, ignored)


def test_cae_trains_on_several_attacks(model, training):
    attacks = {"fgsm": FGSM(early_stop=False), "pgd": PGD(steps=2)}
    defense = ConvAutoEncoder(
        model, partial(Denoiser, SHAPE, (4, 8), 4), attacks, THREAT, training, training, {"pgd": 0.3}
    )
    (craft,) = [stage for stage in defense.stages() if stage.name == "adversarial_set"]
    assert craft.attack.budgets["pgd"].eps == 0.3
    with pytest.raises(UserError, match="mix_clean"):
        ConvAutoEncoder(model, partial(Denoiser, SHAPE), attacks, THREAT, training, training, mix_clean=2)


def test_puvae_keeps_the_closest_class(make, batch):
    defense = make("puvae")
    noise = defense.noise(batch.x, "purifier")
    assert noise.shape == (16, 10, 4)
    images, errors = defense.candidates(batch.x, noise)
    purified = defense.purify(batch.x)
    for k in range(16):
        distances = [(image - batch.x[k]).square().mean().sqrt().item() for image in images[k]]
        assert errors[k].tolist() == pytest.approx(distances, rel=1e-3)
        assert torch.equal(purified[k], images[k][distances.index(min(distances))])
    labels = torch.arange(10).expand(16, -1)
    mean, std = defense.vae.encode(batch.x, labels)
    torch.testing.assert_close(images, defense.vae.decode(mean + 0.1 * std * noise, labels).sigmoid())
    assert make("puvae", inference_std=0.0).noise_shape is None


def test_puvae_soft_class_is_the_hard_choice_with_the_choices_gradient(make, batch):
    defense = make("puvae")
    x = batch.x[:3].clone().requires_grad_(True)
    noise = defense.noise(x, "attacker")
    soft, hard = defense.soft_rebuild(x, noise), defense.rebuild(x, noise)
    torch.testing.assert_close(soft, hard)
    one, two = (torch.autograd.grad(out.square().sum(), x)[0] for out in (soft, hard))
    assert not torch.allclose(one, two)


def test_puvae_loss_by_hand(make, batch):
    defense = make("puvae")
    torch.manual_seed(7)
    terms = defense.losses(batch)
    torch.manual_seed(7)
    mean, std = (part[:, 0] for part in defense.vae.encode(batch.x, batch.y[:, None]))
    logits = defense.vae.decode((mean + std * torch.randn_like(std))[:, None], batch.y[:, None])[:, 0]
    assert terms["reconstruction"].item() == pytest.approx(0.01 * bernoulli_error(logits, batch.x).mean().item())
    assert terms["divergence"].item() == pytest.approx(0.1 * gaussian_kl(mean, std).mean().item())
    answers = defense.undefended(logits.sigmoid()).log_softmax(1)[torch.arange(16), batch.y]
    assert terms["classification"].item() == pytest.approx(-10 * answers.mean().item(), rel=1e-5)


def test_defense_gan_answers_from_its_range(make, batch):
    defense = make("defense_gan")
    noise = defense.noise(batch.x, "purifier")
    assert noise.shape == (16, 2, 8)
    z = defense.latents(batch.x, noise)
    assert torch.equal(defense.purify(batch.x), defense.generator(z))
    x = batch.x[:2].clone().requires_grad_(True)
    out = defense.differentiable(x, noise[:2])
    torch.testing.assert_close(out, defense.rebuild(x, noise[:2]))
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert gradient.abs().sum() > 0
    assert not defense.rebuild(x, noise[:2]).requires_grad


def test_defense_gan_takes_turns(make, batch, monkeypatch):
    defense = make("defense_gan", critic_steps=2)
    defense.enter(stage_of(defense, "gan"))
    optimizer, moved = torch.optim.Adam(defense.parameters(), lr=0.01), []
    for step in range(6):
        monkeypatch.setattr(DefenseGAN, "global_step", property(lambda _, step=step: step))
        before = {k: v.clone() for k, v in defense.state_dict().items()}
        optimizer.zero_grad(set_to_none=True)
        sum(defense.losses(batch).values()).backward()
        defense.on_before_optimizer_step(optimizer)
        optimizer.step()
        moved.append({k.split(".")[0] for k, v in defense.state_dict().items() if not torch.equal(v, before[k])})
    assert moved == [{"critic"}, {"critic"}, {"generator"}] * 2


def test_magnet_scores_and_scale(make, batch):
    defense = make("magnet", temperatures=[10.0])
    defense.enter(stage_of(defense, "autoencoders"))
    defense.losses(batch)
    defense.leave()
    output = defense(batch.x)
    rebuilt, second = defense.reformer(batch.x), defense.second(batch.x)
    raw = torch.stack([((batch.x - rebuilt) ** 2).mean((1, 2, 3)), (batch.x - second).abs().mean((1, 2, 3))], 1)
    torch.testing.assert_close(defense.scores(batch.x, rebuilt, output.logits)[:, :2], raw)
    assert output.parts.shape == (16, 3)
    assert torch.equal(output.risk, output.parts.amax(1))
    # the scale was taken from this very batch
    torch.testing.assert_close(output.parts.mean(0), torch.zeros(3), atol=2e-2, rtol=0)
    torch.testing.assert_close(output.parts[:, 0].std(), torch.tensor(1.0), rtol=2e-2, atol=0)
    far = defense((batch.x + 0.4 * torch.rand_like(batch.x)).clamp(0, 1))
    assert far.risk.mean() > output.risk.mean()


@pytest.mark.parametrize("mode", ["plain", "rec", "e2e"])
def test_defense_vae_modes(make, batch, mode):
    defense = make("defense_vae", mode=mode)
    stages = [stage.name for stage in defense.stages()]
    assert stages == ["undefended", "adversarial_set", "vae"] + ([] if mode == "plain" else ["classifier"])
    if mode == "plain":
        assert defense.head is defense.undefended
        return
    fit = stage_of(defense, "classifier")
    assert fit.trains == (("classifier",) if mode == "rec" else ("classifier", "joint_vae"))
    with torch.no_grad():
        defense.vae.last.weight.mul_(2)
    fit.prepare()
    assert torch.equal(defense.purify(batch.x), defense.vae(batch.x))
    for a, b in zip(defense.classifier.parameters(), defense.undefended.parameters(), strict=True):
        assert torch.equal(a, b)
    expected = F.cross_entropy(defense.classifier(defense.vae(batch.x_adv)), batch.y)
    torch.testing.assert_close(fit.losses(batch)["cross_entropy"], expected)


def test_defense_vae_loss_by_hand(make, batch):
    defense = make("defense_vae", divergence=0.5)
    torch.manual_seed(3)
    terms = defense.losses(batch)
    torch.manual_seed(3)
    mean, log_variance = defense.vae.encode(batch.x_adv)
    std = (log_variance / 2).exp()
    pixels = defense.vae.decode(mean + std * torch.randn_like(std)).sigmoid().double()
    x = batch.x.double()
    nats = -(x * pixels.log() + (1 - x) * (1 - pixels).log()).sum((1, 2, 3))
    assert terms["reconstruction"].item() == pytest.approx(nats.mean().item(), rel=1e-4)
    assert terms["divergence"].item() == pytest.approx(0.5 * gaussian_kl(mean, std).mean().item(), rel=1e-4, abs=1e-6)
    assert set(make("defense_vae").losses(batch)) == {"reconstruction"}


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("puvae", {"weights": [1.0]}, "three weights"),
        ("defense_gan", {"critic_steps": 0}, "at least 1"),
        ("magnet", {"temperatures": [0.0]}, "above 0"),
        ("defense_vae", {"mode": "joint"}, "plain, rec, e2e"),
        ("defense_vae", {"mix_clean": -1}, "share between 0 and 1"),
        ("cae", {"draws": 0}, "at least 1"),
    ],
)
def test_impossible_values(make, name, settings, words):
    with pytest.raises(UserError, match=words):
        make(name, **settings)
