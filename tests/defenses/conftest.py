"""Tiny defenses on generated images."""

from functools import partial

import pytest
import torch

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.defenses.ape_gan import APEGAN
from robustforge.defenses.ape_gan import networks as ape_networks
from robustforge.defenses.cae import ConvAutoEncoder
from robustforge.defenses.cae.networks import Denoiser
from robustforge.defenses.comdefend import ComDefend
from robustforge.defenses.comdefend.networks import CompressionNetwork
from robustforge.defenses.defense_gan import DefenseGAN
from robustforge.defenses.defense_gan.latent_search import LatentSearch
from robustforge.defenses.defense_gan.networks import Critic, Generator
from robustforge.defenses.defense_vae import DefenseVAE
from robustforge.defenses.defense_vae.networks import DefenseVAENetwork
from robustforge.defenses.magnet import MagNet
from robustforge.defenses.magnet.networks import SigmoidAutoencoder
from robustforge.defenses.memdef import MemoryDefense, SelectorSettings, StackSettings
from robustforge.defenses.pixel_defend import PixelDefend
from robustforge.defenses.pixel_defend.networks import PixelCNN
from robustforge.defenses.puvae import PuVAE
from robustforge.defenses.puvae.networks import ConditionalVAE
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import Training
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import Batch, Threat

TRAINING = Training(2, partial(torch.optim.SGD, lr=0.01), constant)
MODEL = partial(small_cnn, shape=(1, 28, 28), num_classes=10, mean=(0.3,), std=(0.3,), widths=(4, 8), hidden=16)
INNER = PGD(steps=2, early_stop=False)
ADVERSARIAL = {
    "beta": 0.0, "gamma": 10.0, "slot": "selector", "wrong_slot": 0.5, "attack": INNER,
    "threat": Threat("linf", 0.1), "clean_weight": 0.0,
}  # fmt: skip


@pytest.fixture
def training():
    return TRAINING


@pytest.fixture
def model():
    return MODEL


@pytest.fixture
def memdef():
    """memdef(selector="pgd", stack={...}, **changes): a Memory Defense; ``stack="adversarial"`` is the config's."""

    def call(selector="pgd", stack=None, **changes):
        stack = ADVERSARIAL if stack == "adversarial" else stack or {}
        return MemoryDefense(
            MODEL, SelectorSettings(selector, TRAINING, INNER, Threat("linf", 0.1)), StackSettings(TRAINING, **stack), TRAINING,
            **{"shape": (1, 28, 28), "num_classes": 10, "memory_size": 20, **changes},
        )  # fmt: skip

    return call


@pytest.fixture
def batch():
    """16 images whose labels cover all classes, with stored partners."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 1, 28, 28, generator=generator)
    x_adv = (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    return Batch(x, torch.arange(16) % 10, torch.arange(40, 56), x_adv)


# ---- purifiers, as small as they can be

OFFLINE = {"main": FGSM(early_stop=False)}
PURIFIERS = {
    "cae": lambda m, t, **k: ConvAutoEncoder(
        m, partial(Denoiser, (1, 28, 28), (4, 8), 4), OFFLINE, Threat("linf", 0.1), t, t, **k
    ),
    "puvae": lambda m, t, **k: PuVAE(m, partial(ConditionalVAE, (1, 28, 28), 10, 4, 4, 16), t, t, **{"draws": 2, **k}),
    "defense_gan": lambda m, t, **k: DefenseGAN(
        m, partial(Generator, (1, 28, 28), 8, 4), partial(Critic, (1, 28, 28), 4), LatentSearch(2, 3), t, t, **k
    ),
    "magnet": lambda m, t, **k: MagNet(
        m, partial(SigmoidAutoencoder, (1, 28, 28), True), partial(SigmoidAutoencoder, (1, 28, 28), False), t, t, **k
    ),
    "ape_gan": lambda m, t, **k: APEGAN(
        m,
        partial(ape_networks.Generator, (1, 28, 28), 4),
        partial(ape_networks.Discriminator, (1, 28, 28), 4),
        OFFLINE,
        Threat("linf", 0.1),
        t,
        t,
        **k,
    ),
    "defense_vae": lambda m, t, **k: DefenseVAE(
        m, partial(DefenseVAENetwork, (1, 28, 28), 8, 4), OFFLINE, Threat("linf", 0.1), t, t, t, **k
    ),
    "pixel_defend": lambda m, t, **k: PixelDefend(m, partial(PixelCNN, (1, 28, 28), 4, 1, 2), t, t, **k),
    "comdefend": lambda m, t, **k: ComDefend(m, partial(CompressionNetwork, (1, 28, 28), 3, (4, 8)), t, t, **k),
}


@pytest.fixture
def make_purifier(model, training):
    """make_purifier(name, **settings): a frozen purifier, in eval mode."""

    def call(name, **settings):
        torch.manual_seed(0)
        defense = PURIFIERS[name](model, training, **settings)
        defense.leave()
        return defense

    return call
