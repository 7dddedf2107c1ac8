"""The same attacks as other libraries have them: each function attacks all images and returns the adversarial ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustforge.bench._victims import Victim
from robustforge.types import UserError

Oracle = Callable[[Victim], Tensor]


def pgd(steps: int) -> dict[str, Oracle]:
    """PGD with a uniform start and steps of 2.5 eps / steps, L-infinity."""

    def of_torchattacks(victim: Victim) -> Tensor:
        return _torchattacks(victim, "PGD", eps=victim.threat.eps, alpha=_step(victim, steps), steps=steps)

    def of_foolbox(victim: Victim) -> Tensor:
        import foolbox

        attack = foolbox.attacks.LinfPGD(steps=steps, abs_stepsize=_step(victim, steps), random_start=True)
        return attack(_foolbox(victim.network), victim.x, victim.y, epsilons=victim.threat.eps)[1]

    def of_art(victim: Victim) -> Tensor:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch

        attack = ProjectedGradientDescentPyTorch(
            _art(victim), norm=np.inf, eps=victim.threat.eps, eps_step=_step(victim, steps), max_iter=steps,
            num_random_init=1, batch_size=len(victim.x), verbose=False,
        )  # fmt: skip
        return torch.from_numpy(attack.generate(victim.x.numpy(), victim.y.numpy()))

    return {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "ART": of_art}


def carlini_wagner(search_steps: int, steps: int) -> dict[str, Oracle]:
    """Carlini & Wagner's L2 attack with a binary search; torchattacks' has none and is left out."""

    def of_foolbox(victim: Victim) -> Tensor:
        import foolbox

        attack = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=search_steps, steps=steps, stepsize=5e-3, initial_const=1e-2
        )
        return attack(_foolbox(victim.network), victim.x, victim.y, epsilons=None)[1]

    return {"foolbox": of_foolbox}


def deepfool(steps: int) -> dict[str, Oracle]:
    """DeepFool for L2 over all classes, overshoot 0.02."""

    def of_torchattacks(victim: Victim) -> Tensor:
        return _torchattacks(victim, "DeepFool", steps=steps, overshoot=0.02)

    def of_foolbox(victim: Victim) -> Tensor:
        import foolbox

        attack = foolbox.attacks.L2DeepFoolAttack(steps=steps, candidates=None, overshoot=0.02)
        return attack(_foolbox(victim.network), victim.x, victim.y, epsilons=None)[1]

    def of_art(victim: Victim) -> Tensor:
        from art.attacks.evasion import DeepFool

        attack = DeepFool(
            _art(victim), max_iter=steps, epsilon=0.02, nb_grads=10, batch_size=len(victim.x), verbose=False
        )
        return torch.from_numpy(attack.generate(victim.x.numpy()))

    return {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "ART": of_art}


def jsma(gamma: float) -> dict[str, Oracle]:
    """Saliency-map attack with theta 1 towards the next class, at most a share ``gamma`` of the pixels."""

    def of_torchattacks(victim: Victim) -> Tensor:
        return _torchattacks(victim, "JSMA", theta=1.0, gamma=gamma)

    def of_art(victim: Victim) -> Tensor:
        from art.attacks.evasion import SaliencyMapMethod

        attack = SaliencyMapMethod(_art(victim), theta=1.0, gamma=gamma, batch_size=len(victim.x), verbose=False)
        target = np.eye(10, dtype=np.float32)[((victim.y + 1) % 10).numpy()]
        return torch.from_numpy(attack.generate(victim.x.numpy(), target))

    return {"torchattacks": of_torchattacks, "ART": of_art}


def auto_attack() -> dict[str, Oracle]:
    """AutoAttack's standard ensemble as shipped: 10 steps an attack, where the paper and ours take 100."""

    def of_torchattacks(victim: Victim) -> Tensor:
        return _torchattacks(victim, "AutoAttack", norm="Linf", eps=victim.threat.eps, version="standard", n_classes=10)

    return {"torchattacks": of_torchattacks}


def require() -> None:
    """Raises UserError unless the other libraries are installed."""
    try:
        import art  # noqa: F401
        import foolbox  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"This benchmark runs other attack libraries and {error.name} is missing: run it where `uv sync` has "
            "installed the development group, or pip install foolbox adversarial-robustness-toolbox."
        ) from error


def _step(victim: Victim, steps: int) -> float:
    return 2.5 * victim.threat.eps / steps


def _torchattacks(victim: Victim, name: str, **settings: Any) -> Tensor:
    import torchattacks

    with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
        adversarial: Tensor = getattr(torchattacks, name)(victim.network, **settings)(victim.x, victim.y)
    return adversarial.detach()


def _foolbox(network: nn.Module) -> Any:
    import foolbox

    return foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")


def _art(victim: Victim) -> Any:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        victim.network, nn.CrossEntropyLoss(), tuple(victim.x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
