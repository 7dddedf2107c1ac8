"""The base of defenses that rebuild the image and classify what they have rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robustforge.attacks.core.attack import Attack
from robustforge.attacks.core.surface import Surface, bpda, eot, transfer
from robustforge.attacks.mixture import Mixture
from robustforge.defenses.base import Defense, classify
from robustforge.defenses.figures import Figure, gallery
from robustforge.defenses.stages import Factory, FitStage, Stage, Training, build_seeded
from robustforge.defenses.undefended import plain_stage
from robustforge.randomness import SampleRandom, image_key
from robustforge.ranges import PositiveInt
from robustforge.types import Batch, DefenseOutput, Threat, UserError

DEPLOYED, ATTACKER = "purifier", "attacker"


class Purifier(Defense):
    """A network (or search) that rebuilds the image, before a classifier trained on clean images.

    A subclass writes ``rebuild(x, noise)`` and ``purifier_stages()``, and ``noise_shape`` if it draws random numbers.

    Args:
        model: factory of the classifier.
        undefended_training: how the classifier is optimized.
        draws: passes over whose randomness the surface ``eot`` averages.
        seed: of initial weights, batches, attacks and the deployed noise.

    Raises:
        UserError: fewer than one draw.

    Notes:
        The deployed system's noise is a function of (seed, image), so that the same image gets the same answer in any
        batch, and success as an attack judged it is success as recorded. Attackers do not know that function: their
        passes draw other numbers, anew for every iterate, but for those of the surface ``fixed_noise``.
    """

    def __init__(self, model: Factory, undefended_training: Training, draws: PositiveInt = 16, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if draws < 1:
            raise UserError(f"defense.draws is {draws}: give at least 1.")
        self.undefended_training, self.draws = undefended_training, draws
        self.undefended = build_seeded(model, seed, "undefended")

    # ---- what a subclass writes -------------------------------------------------------------------------------------

    def rebuild(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """Rebuilds images.

        Args:
            x: (B, C, H, W) in [0, 1].
            noise: (B, *noise_shape) standard normal, or None for purifiers without a ``noise_shape``.

        Returns:
            (B, C, H, W) in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} must define rebuild(x, noise).")

    def purifier_stages(self) -> list[Stage]:
        """The stages after the classifier's."""
        raise NotImplementedError(f"{type(self).__name__} must define purifier_stages().")

    @property
    def noise_shape(self) -> tuple[int, ...] | None:
        """Shape of one image's random numbers at inference, or None for a deterministic purifier."""
        return None

    @property
    def head(self) -> nn.Module:
        """The classifier of rebuilt images, (B, C, H, W) -> (B, K)."""
        return self.undefended

    def differentiable(self, x: Tensor, noise: Tensor | None) -> Tensor:
        """:meth:`rebuild` as the surface ``end_to_end`` differentiates it."""
        return self.rebuild(x, noise)

    # ---- what the base does -----------------------------------------------------------------------------------------

    def purify(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> what the classifier sees, as deployed."""
        return self.rebuild(x, self.noise(x, DEPLOYED))

    def forward(self, x: Tensor) -> DefenseOutput:
        """(B, C, H, W) in [0, 1] -> logits (B, K), risk = mean squared change of a pixel (B,), rebuilt image."""
        return self.respond(x, self.purify(x))

    def respond(self, x: Tensor, purified: Tensor) -> DefenseOutput:
        """The answer to ``x`` once it is purified, both (B, C, H, W)."""
        return DefenseOutput(self.head(purified), (x - purified).square().flatten(1).mean(1), purified)

    def noise(self, x: Tensor, who: str, draws: int = 1) -> Tensor | None:
        """(B, *noise_shape) standard normal numbers that depend on (seed, who, image), or None.

        Args:
            x: (B, C, H, W), in blocks of the same images when there are several ``draws``.
            who: draws them.
            draws: blocks that get different numbers for the same image.
        """
        if self.noise_shape is None:
            return None
        keys = image_key(x).chunk(draws)
        parts = [SampleRandom(self.seed, who, k).normal(key, self.noise_shape) for k, key in enumerate(keys)]
        return torch.cat(parts)

    def surfaces(self) -> dict[str, Surface]:
        """What an attacker may differentiate, all judged by the deployed system.

        ``end_to_end``: plain autodiff, with random numbers of the attacker's own; ``transfer``: the undefended
        classifier (the papers' protocol); ``bpda``: the identity in the purifier's place on the way back. Where numbers
        are drawn, also ``fixed_noise``: ``end_to_end`` by an attacker who knows the deployed noise, a function of the
        image; and ``eot``: ``end_to_end`` averaged over ``draws`` passes, when that is more than one.
        """

        def attacked(x: Tensor, draws: int = 1, who: str = ATTACKER) -> Tensor:
            return self.differentiable(x, self.noise(x, who, draws))

        def surface(name: str, draws: int = 1, who: str = ATTACKER) -> Surface:
            return Surface(
                name,
                lambda x, _: (self.head(attacked(x, draws, who)),),
                lambda x, _: self(x),
                self,
                attacker_output=lambda x, _: self.respond(x, attacked(x, draws, who)),
            )

        end_to_end = surface("end_to_end")
        found = {
            "end_to_end": end_to_end,
            "transfer": transfer(self.undefended, end_to_end),
            "bpda": bpda(lambda x: self.rebuild(x, self.noise(x, ATTACKER)), self.head, end_to_end),
        }
        if self.noise_shape is not None:
            found["fixed_noise"] = surface("fixed_noise", who=DEPLOYED)
            if self.draws > 1:
                found["eot"] = eot(surface("eot", self.draws), self.draws)
        return found

    def systems(self) -> dict[str, dict[str, Surface]]:
        """The undefended classifier beside the defense."""
        return {"undefended": classify(self.undefended)}

    def stages(self) -> list[Stage]:
        """The classifier on clean images (the same as ``defense=none``), then the purifier's own."""
        return [plain_stage(self), *self.purifier_stages()]

    def fit_stage(self, name: str, trains: tuple[str, ...], takes: tuple[str, ...], **options: Any) -> FitStage:
        """A fit of ``trains`` on :meth:`losses`, with the classifier at hand; see :class:`FitStage`."""
        assert self.training_settings is not None
        options = {"uses": ("undefended",), "validate": self.purifier_metrics, **options}
        return FitStage(name, trains, self.losses, self.training_settings, takes=takes, **options)

    def offline_figures(self, attack: Attack, threat: Threat) -> dict[str, Figure]:
        """The attack that the purifier was trained to undo, where it was made: on the undefended classifier."""
        surface = self.surfaces()["transfer"]
        return {"gallery_transfer": lambda scene: gallery(replace(scene, attack=attack, threat=threat), surface)}

    def purifier_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Accuracy (B,) of the deployed system on clean held-out images, and the mean squared change of a pixel."""
        output = self(batch.x)
        assert output.purified is not None
        change = (output.purified - batch.x).square().flatten(1).mean(1)
        return {"accuracy": (output.logits.argmax(1) == batch.y).float(), "clean_change": change}

    @torch.no_grad()
    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """``clean_change``: mean squared change (B,) of a clean image's pixels by the purifier."""
        return {"clean_change": (self.purify(batch.x) - batch.x).square().flatten(1).mean(1)}


def offline_attack(
    attacks: Mapping[str, Attack], budgets: Mapping[str, float], threat: Threat
) -> tuple[Attack, Threat]:
    """One attack with its budget, or a mixture of several with the widest of theirs.

    Args:
        attacks: by label.
        budgets: eps by label, in ``threat``'s norm; labels that are missing have ``threat``'s own.
        threat: the default budget.

    Raises:
        UserError: no attack, or a budget without an attack.
    """
    strange = set(budgets) - set(attacks)
    if strange or not attacks:
        raise UserError(
            f"defense.train_budgets names {', '.join(sorted(strange)) or 'nothing'} and defense.train_attacks "
            f"{', '.join(attacks) or 'nothing'}: give at least one attack, and budgets only for attacks that are there."
        )
    threats = {label: Threat(threat.norm, budgets.get(label, threat.eps)) for label in attacks}
    if len(attacks) == 1:
        (label,) = attacks
        return attacks[label], threats[label]
    return Mixture(attacks, threats), max(threats.values(), key=lambda budget: budget.eps)


def with_clean(batch: Batch, share: float) -> Tensor:
    """(B, C, H, W) stored adversarial images, a random ``share`` of them replaced by their clean partners."""
    assert batch.x_adv is not None, "this stage has an adversarial set"
    if not share:
        return batch.x_adv
    clean = torch.rand(len(batch.x), 1, 1, 1, device=batch.x.device) < share
    return torch.where(clean, batch.x, batch.x_adv)
