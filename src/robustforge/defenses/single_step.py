"""Training examples of one gradient step, which cost one pass in place of many, and how such training fails."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from robustforge.attacks.core.ascent import OBJECTIVES
from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.geometry import ascent_direction, project, random_start
from robustforge.attacks.core.session import attacking
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.randomness import SampleRandom
from robustforge.types import Batch, Threat

OVERFITTED = 0.3  # share of images that stand under the training attack and fall to PGD-10


@dataclass(frozen=True)
class SingleStep:
    """One step of the gradient's sign from a random start.

    Attributes:
        name: addresses the random draws.
        noise: radius of the uniform start, in budgets.
        step: length of the step, in budgets.
        inside: whether the image is projected back onto the ball of the budget.
    """

    name: str
    noise: float
    step: float
    inside: bool

    def examples(self, surface: Surface, batch: Batch, threat: Threat, seed: int) -> Tensor:
        """Attacked images (B, C, H, W) in [0, 1]; outside the ball where ``inside`` is False.

        Args:
            surface: the network in training.
            batch: clean images and labels.
            threat: the training budget.
            seed: of the random starts.
        """
        x, random = batch.x, SampleRandom(seed, self.name)
        with attacking(surface, x, batch.y, threat, index=batch.index) as session:
            start = random_start(x, session.index, replace(threat, eps=self.noise * threat.eps), random)
            gradient, _, _ = session.gradient(start, session.everyone(), OBJECTIVES["cross_entropy"])
            moved = start + self.step * threat.eps * ascent_direction(gradient, threat)
            return project(moved, x, threat) if self.inside else moved.clamp(0, 1)


SINGLE_STEPS = {
    # Wong et al. 2020, arXiv:2001.03994: uniform start in the ball, step of 1.25 budgets
    "fast": SingleStep("fast", noise=1.0, step=1.25, inside=True),
    # de Jorge et al. 2022, arXiv:2202.01181: uniform start in twice the ball, step of one budget, no projection
    "n_fgsm": SingleStep("n_fgsm", noise=2.0, step=1.0, inside=False),
}


def takes_one_step(attack: Attack) -> bool:
    """Whether an attack makes one gradient step, so that training on it alone may overfit it."""
    return isinstance(attack, FGSM) or getattr(attack, "steps", None) == 1


def accuracy_under(attack: Attack) -> str:
    """The held-out metric that chooses an epoch: under PGD-10 where training may overfit the attack's single step."""
    return "pgd_accuracy" if takes_one_step(attack) else "robust_accuracy"


def stands_under_pgd(surface: Surface, batch: Batch, threat: Threat, seed: int, count: int = 64) -> Tensor:
    """Whether the first ``count`` images of a held-out batch stand under PGD-10, (n,) float of 0 and 1."""
    x, y = batch.x[:count], batch.y[:count]
    index = None if batch.index is None else batch.index[:count]
    return (~PGD(steps=10)(surface, x, y, threat, index=index, seed=seed).success).float()


def overfitting(metrics: dict[str, float]) -> str | None:
    """What to say of catastrophic overfitting (Wong et al. 2020, Sec. 5), or None where there is none.

    Args:
        metrics: of the held-out images after an epoch, in [0, 1]: ``robust_accuracy`` under the training attack, and
            ``pgd_accuracy`` where that attack makes one step.
    """
    trained, stronger = metrics.get("robust_accuracy"), metrics.get("pgd_accuracy")
    if trained is None or stronger is None or trained - stronger <= OVERFITTED:
        return None
    return (
        f"catastrophic overfitting: {trained:.0%} of the held-out images stand under the training attack of one step, "
        f"{stronger:.0%} under PGD-10. Train on examples=n_fgsm or an attack of more steps, or set grad_align"
    )
