"""The same attacks as other libraries have them: each function attacks all images and returns the adversarial ones."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._victims import Victim
from robustforge.types import UserError

Oracle = Callable[[Victim], Tensor]


def pgd(steps: int) -> dict[str, Oracle]:
    """PGD with a uniform start and steps of 2.5 eps / steps, L-infinity."""

    def of_torchattacks(victim: Victim) -> Tensor:
        return torchattacks_of(victim, "PGD", eps=victim.threat.eps, alpha=_step(victim, steps), steps=steps)

    def of_foolbox(victim: Victim) -> Tensor:
        import foolbox

        attack = foolbox.attacks.LinfPGD(steps=steps, abs_stepsize=_step(victim, steps), random_start=True)
        return attack(foolbox_model(victim.network), victim.x, victim.y, epsilons=victim.threat.eps)[1]

    def of_art(victim: Victim) -> Tensor:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch

        attack = ProjectedGradientDescentPyTorch(
            art_classifier(victim),
            norm=np.inf,
            eps=victim.threat.eps,
            eps_step=_step(victim, steps),
            max_iter=steps,
            num_random_init=1,
            batch_size=len(victim.x),
            verbose=False,
        )
        return torch.from_numpy(attack.generate(victim.x.numpy(), victim.y.numpy()))

    return {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "ART": of_art}


def carlini_wagner(search_steps: int, steps: int, step_size: float = 5e-3, constant: float = 1e-2) -> dict[str, Oracle]:
    """Carlini & Wagner's L2 attack with a binary search; torchattacks' has none and is left out."""

    def of_foolbox(victim: Victim) -> Tensor:
        import foolbox

        attack = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=search_steps, steps=steps, stepsize=step_size, initial_const=constant
        )
        return attack(foolbox_model(victim.network), victim.x, victim.y, epsilons=None)[1]

    return {"foolbox": of_foolbox}


def deepfool(steps: int) -> dict[str, Oracle]:
    """DeepFool for L2 over all classes, overshoot 0.02."""

    def of_torchattacks(victim: Victim) -> Tensor:
        return torchattacks_of(victim, "DeepFool", steps=steps, overshoot=0.02)

    def of_foolbox(victim: Victim) -> Tensor:
        import foolbox

        attack = foolbox.attacks.L2DeepFoolAttack(steps=steps, candidates=None, overshoot=0.02)
        return attack(foolbox_model(victim.network), victim.x, victim.y, epsilons=None)[1]

    def of_art(victim: Victim) -> Tensor:
        from art.attacks.evasion import DeepFool

        attack = DeepFool(
            art_classifier(victim), max_iter=steps, epsilon=0.02, nb_grads=10, batch_size=len(victim.x), verbose=False
        )
        return torch.from_numpy(attack.generate(victim.x.numpy()))

    return {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "ART": of_art}


def jsma(gamma: float) -> dict[str, Oracle]:
    """Saliency-map attack with theta 1 toward the next class, at most a share ``gamma`` of the pixels."""

    def of_torchattacks(victim: Victim) -> Tensor:
        return torchattacks_of(victim, "JSMA", theta=1.0, gamma=gamma)

    def of_art(victim: Victim) -> Tensor:
        from art.attacks.evasion import SaliencyMapMethod

        attack = SaliencyMapMethod(
            art_classifier(victim), theta=1.0, gamma=gamma, batch_size=len(victim.x), verbose=False
        )
        target = np.eye(10, dtype=np.float32)[((victim.y + 1) % 10).numpy()]
        return torch.from_numpy(attack.generate(victim.x.numpy(), target))

    return {"torchattacks": of_torchattacks, "ART": of_art}


def fast_minimum_norm(steps: int) -> dict[str, Oracle]:
    """FMN for L2."""

    def of_foolbox(victim: Victim) -> Tensor:
        import foolbox

        attack = foolbox.attacks.L2FMNAttack(steps=steps)
        return attack(foolbox_model(victim.network), victim.x, victim.y, epsilons=None)[1]

    return {"foolbox": of_foolbox}


def auto_attack(steps: int) -> dict[str, Oracle]:
    """The parts of AutoAttack's standard ensemble, each of ``steps`` steps; torchattacks ships it with 10."""

    def of_torchattacks(victim: Victim) -> Tensor:
        import torchattacks as ta

        settings = {"eps": victim.threat.eps, "norm": "Linf", "seed": 0}
        parts = [
            ta.APGD(victim.network, steps=steps, loss="ce", **settings),
            ta.APGDT(victim.network, steps=steps, n_classes=10, **settings),
            ta.FAB(victim.network, steps=steps, multi_targeted=True, n_classes=10, **settings),
            ta.Square(victim.network, n_queries=5000, **settings),
        ]
        with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence):
            return ta.MultiAttack(parts)(victim.x, victim.y).detach()

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


def torchattacks_of(victim: Victim, name: str, seed: int = 0, **settings: Any) -> Tensor:
    """What the class ``name`` of torchattacks makes of the victim's images, its random numbers from ``seed``."""
    import torchattacks

    kind = getattr(torchattacks, name)
    if "seed" in inspect.signature(kind.__init__).parameters:
        settings["seed"] = seed
    with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), torch.random.fork_rng([]):
        torch.manual_seed(seed)
        adversarial: Tensor = kind(victim.network, **settings)(victim.x, victim.y)
    return adversarial.detach()


def foolbox_model(network: nn.Module) -> Any:
    """The network as foolbox asks for it."""
    import foolbox

    return foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")


def art_classifier(victim: Victim) -> Any:
    """The network as ART asks for it."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        victim.network, nn.CrossEntropyLoss(), tuple(victim.x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
