"""Models that hide their gradients, and one that does not: what indicators must tell apart."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from robustforge.attacks.core.attack import BaseAttack
from robustforge.attacks.core.geometry import project, random_start
from robustforge.attacks.core.surface import Surface, end_to_end, transfer
from robustforge.attacks.pgd import PGD
from robustforge.defenses.base import Defense, classify
from robustforge.nn.small_cnn import small_cnn
from robustforge.randomness import SampleRandom
from robustforge.types import DefenseOutput, Threat

EPS = 0.1


def network():
    return small_cnn((1, 28, 28), 10, (0.3,), (0.3,), (8, 16), 32)


def fit(data, epochs, attack=None, start=None, lr=4e-3):
    """A small CNN trained on clean digits, or on its own adversarial examples, maybe from another's weights."""
    torch.manual_seed(0)
    body = network()
    if start is not None:
        body.load_state_dict(start.state_dict())
    optimizer = torch.optim.Adam(body.parameters(), lr=lr)
    x, y = data.train.images.float() / 255, data.train.labels
    surface = end_to_end(lambda x: DefenseOutput(body(x)), body)
    for epoch in range(epochs):
        for rows in torch.randperm(len(y)).split(64):
            inputs = x[rows]
            if attack is not None:
                inputs = attack(surface, inputs, y[rows], Threat("linf", EPS), index=rows, seed=epoch).x_adv
            optimizer.zero_grad()
            F.cross_entropy(body.train()(inputs), y[rows]).backward()
            optimizer.step()
    return body.eval()


class Wrapped(Defense):
    """A network behind a preprocessor, its logits scaled; the surface has another attacker's view where given."""

    def __init__(self, body, before=lambda x: x, scale=1.0):
        super().__init__()
        self.body, self.before, self.scale = body, before, scale

    def forward(self, x):
        return DefenseOutput(self.scale * self.body(self.before(x)))

    def systems(self):
        return {"undefended": classify(self.body)}


class Slotted(Defense):
    """A selector decides the class; the stack's logits hardly depend on anything but the slot that is opened.

    The one surface hands the true slot to the stack, as released test code has done: it is blind to the selector.
    """

    def __init__(self, body):
        super().__init__()
        self.selector, self.stack = body, nn.Linear(28 * 28, 10)
        with torch.no_grad():
            self.stack.weight.copy_(torch.linspace(-1, 1, 10 * 28 * 28).sin().view(10, -1) / 300)

    def opened(self, x, slot):
        return 10 * F.one_hot(slot, 10).float() + self.stack(x.flatten(1))

    def forward(self, x):
        return DefenseOutput(self.opened(x, self.selector(x).argmax(1)))

    def surfaces(self):
        blind = Surface("end_to_end", lambda x, y: (self.opened(x, y),), lambda x, _: self(x), self)
        return {"end_to_end": blind, "transfer": transfer(self.selector, blind)}


def rounding(x):
    return (8 * x).round() / 8


def thermometer(x):
    levels = torch.arange(1, 9, device=x.device).view(1, 8, 1, 1) / 9
    return (x > levels).float().mean(1, keepdim=True)


def shattering(x):
    """Moves a pixel by 0.02 at most, and points its gradient anywhere."""
    return x + 0.02 * torch.sin(2000 * x)


@dataclass(frozen=True)
class Noise(BaseAttack):
    """One uniform draw in the ball."""

    name: str = "uniform_noise"

    def perturb(self, session, seed):
        return project(
            random_start(session.x, session.index, session.threat, SampleRandom(seed, self.name)),
            session.x,
            session.threat,
        )


def training_attack():
    return PGD(steps=5, early_stop=False)
