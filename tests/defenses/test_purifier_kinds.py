"""The convolutional auto-encoder, PuVAE, Defense-GAN, MagNet and Defense-VAE, each against its formulas."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import classify
from robustforge.defenses.cae import ConvAutoEncoder
from robustforge.defenses.cae.networks import Denoiser
from robustforge.defenses.defense_gan import DefenseGAN
from robustforge.losses.purification import bernoulli_error, gaussian_kl
from robustforge.types import AttackResult, Batch, Threat, UserError

SHAPE, THREAT = (1, 28, 28), Threat("linf", 0.1)


def stage_of(defense, name):
    return next(stage for stage in defense.stages() if stage.name == name)


def test_cae_loss_by_hand(make_purifier, batch):
    defense = make_purifier("cae")
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


def test_guidance_is_the_mean_change_of_the_logits(make_purifier, batch):
    defense = make_purifier("cae", guidance=0.5)
    defense.enter(stage_of(defense, "denoiser"))
    defense.denoiser.eval()
    torch.manual_seed(5)
    terms = defense.losses(batch)
    torch.manual_seed(5)
    rebuilt = defense.denoiser(batch.x_adv, torch.randn(16, *defense.denoiser.latent_shape))
    change = (defense.undefended(rebuilt) - defense.undefended(batch.x)).detach()
    assert terms["guidance"].item() == pytest.approx(0.5 * change.abs().sum().item() / (16 * 10), rel=1e-5)
    sum(terms.values()).backward()
    assert all(p.grad is not None for p in defense.denoiser.parameters())
    assert all(p.grad is None for p in defense.undefended.parameters())
    assert set(make_purifier("cae").losses(batch)) == {"mse"}


def test_cae_noise_is_off_at_inference_unless_asked(make_purifier, batch):
    quiet, noisy = make_purifier("cae"), make_purifier("cae", infer_noise=True, draws=3)
    noisy.load_state_dict(quiet.state_dict())
    assert torch.equal(quiet.purify(batch.x), quiet.denoiser(batch.x))
    assert set(quiet.surfaces()) == {"end_to_end", "transfer", "bpda"}
    assert not torch.equal(noisy.purify(batch.x), quiet.purify(batch.x))
    assert torch.equal(noisy.purify(batch.x), noisy.purify(batch.x))
    assert noisy.surfaces()["eot"].draws == 3


def test_cae_diagnostics_tell_a_decoder_from_a_denoiser(make_purifier, batch):
    """A purifier that answers with the label the attack was given is caught; one that ignores it is not."""
    defense = make_purifier("cae")
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


def test_puvae_keeps_the_closest_class(make_purifier, batch):
    defense = make_purifier("puvae")
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
    assert make_purifier("puvae", inference_std=0.0).noise_shape is None


def test_puvae_soft_class_is_the_hard_choice_with_the_choices_gradient(make_purifier, batch):
    defense = make_purifier("puvae")
    x = batch.x[:3].clone().requires_grad_(True)
    noise = defense.noise(x, "attacker")
    soft, hard = defense.soft_rebuild(x, noise), defense.rebuild(x, noise)
    torch.testing.assert_close(soft, hard)
    one, two = (torch.autograd.grad(out.square().sum(), x)[0] for out in (soft, hard))
    assert not torch.allclose(one, two)


def test_puvae_loss_by_hand(make_purifier, batch):
    defense = make_purifier("puvae")
    torch.manual_seed(7)
    terms = defense.losses(batch)
    torch.manual_seed(7)
    mean, std = (part[:, 0] for part in defense.vae.encode(batch.x, batch.y[:, None]))
    logits = defense.vae.decode((mean + std * torch.randn_like(std))[:, None], batch.y[:, None])[:, 0]
    assert terms["reconstruction"].item() == pytest.approx(0.01 * bernoulli_error(logits, batch.x).mean().item())
    assert terms["divergence"].item() == pytest.approx(0.1 * gaussian_kl(mean, std).mean().item() / 4)
    answers = defense.undefended(logits.sigmoid()).log_softmax(1)[torch.arange(16), batch.y]
    assert terms["classification"].item() == pytest.approx(-10 * answers.mean().item(), rel=1e-5)


def test_defense_gan_answers_from_its_range(make_purifier, batch):
    defense = make_purifier("defense_gan")
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


def test_defense_gan_takes_turns(make_purifier, batch, monkeypatch):
    defense = make_purifier("defense_gan", critic_steps=2)
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


def test_magnet_scores_and_scale(make_purifier, batch):
    defense = make_purifier("magnet", temperatures=[10.0])
    defense.enter(stage_of(defense, "autoencoders"))
    defense.losses(batch)
    defense.leave()
    output = defense(batch.x)
    rebuilt, second = defense.reformer(batch.x), defense.second(batch.x)
    raw = torch.stack([((batch.x - rebuilt) ** 2).mean((1, 2, 3)), (batch.x - second).abs().mean((1, 2, 3))], 1)
    torch.testing.assert_close(defense.scores(batch.x, rebuilt, output.logits)[:, :2], raw)
    assert output.detector_scores.shape == (16, 3)
    assert torch.equal(output.risk, output.detector_scores.amax(1))
    # the scale was taken from this very batch
    torch.testing.assert_close(output.detector_scores.mean(0), torch.zeros(3), atol=2e-2, rtol=0)
    torch.testing.assert_close(output.detector_scores[:, 0].std(), torch.tensor(1.0), rtol=2e-2, atol=0)
    far = defense((batch.x + 0.4 * torch.rand_like(batch.x)).clamp(0, 1))
    assert far.risk.mean() > output.risk.mean()


@pytest.mark.parametrize("mode", ["plain", "rec", "e2e"])
def test_defense_vae_modes(make_purifier, batch, mode):
    defense = make_purifier("defense_vae", mode=mode)
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


def test_defense_vae_loss_by_hand(make_purifier, batch):
    defense = make_purifier("defense_vae", divergence=0.5)
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
    assert set(make_purifier("defense_vae").losses(batch)) == {"reconstruction"}


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("puvae", {"weights": [1.0]}, "three weights"),
        ("defense_gan", {"critic_steps": 0}, "at least 1"),
        ("magnet", {"temperatures": [0.0]}, "above 0"),
        ("defense_vae", {"mode": "joint"}, "plain, rec, e2e"),
        ("defense_vae", {"mix_clean": -1}, "share between 0 and 1"),
        ("cae", {"draws": 0}, "at least 1"),
        ("cae", {"guidance": -0.1}, "0 or more"),
    ],
)
def test_impossible_values(make_purifier, name, settings, words):
    with pytest.raises(UserError, match=words):
        make_purifier(name, **settings)
