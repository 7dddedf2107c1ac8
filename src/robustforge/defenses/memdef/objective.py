"""What Memory Defense is trained on: classifier-A on attacked images, the stack on slots of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustforge.attacks.core.surface import Surface
from robustforge.defenses.memdef.losses import memory_defense_terms
from robustforge.defenses.memdef.settings import SelectorSettings, StackSettings
from robustforge.defenses.memdef.system import MemorySystem
from robustforge.types import Batch


def selector_terms(
    selector: nn.Module, undefended: nn.Module, settings: SelectorSettings, batch: Batch, seed: int
) -> dict[str, Tensor]:
    """Cross-entropy on the 50/50 union (``offline``), or the min-max loss (``pgd``), whose attack has ``seed``.

    ``undefended`` says which stored images are successes, where only those are trained on.
    """
    if settings.kind == "pgd":
        return settings.robust.terms(selector, batch, seed)
    assert batch.x_adv is not None, "the offline selector trains on pairs of clean and stored images"
    clean, attacked = selector(torch.cat([batch.x, batch.x_adv])).chunk(2)
    terms = {"clean": 0.5 * F.cross_entropy(clean, batch.y)}
    if not settings.successful_only:
        return {**terms, "adversarial": 0.5 * F.cross_entropy(attacked, batch.y)}
    with torch.no_grad():
        wrong = (undefended(batch.x_adv).argmax(1) != batch.y).float()
    entropy = F.cross_entropy(attacked, batch.y, reduction="none")
    return {**terms, "adversarial": 0.5 * (wrong * entropy).sum() / wrong.sum().clamp_min(1)}


def stack_terms(
    system: MemorySystem, settings: StackSettings, x: Tensor, batch: Batch, weight: float = 1.0
) -> dict[str, Tensor]:
    """Eq. 13 with the joint cross-entropy, times ``weight``, for inputs ``x`` that stand for ``batch``'s images."""
    noise = settings.noise * torch.randn_like(x) if settings.noise else None
    slots = training_slots(system, settings, x, batch.y)
    terms = memory_defense_terms(
        system.stack(x, slots, noise, others=settings.beta > 0),
        batch.x,
        batch.y,
        alpha=settings.alpha,
        beta=settings.beta,
        gamma=settings.gamma,
        num_classes=system.num_classes,
    )
    return {name: weight * term for name, term in terms.items()}


def attacked_stack_terms(
    system: MemorySystem, settings: StackSettings, surface: Surface, batch: Batch, seed: int
) -> dict[str, Tensor]:
    """:func:`stack_terms` of attacked images and, where they have a weight, of clean ones."""
    assert settings.attack is not None
    assert settings.threat is not None
    x_adv = settings.attack.examples(surface, batch.x, batch.y, settings.threat, index=batch.index, seed=seed)
    attacked = stack_terms(system, settings, x_adv, batch, 1 - settings.clean_weight)
    if settings.clean_weight == 0:
        return attacked
    clean = stack_terms(system, settings, batch.x, batch, settings.clean_weight)
    return {**{f"clean_{k}": v for k, v in clean.items()}, **{f"attacked_{k}": v for k, v in attacked.items()}}


def training_slots(system: MemorySystem, settings: StackSettings, x: Tensor, y: Tensor) -> Tensor:
    """(B,) slot opened in training: the settings' source, a share of them replaced by a random class."""
    slots = y
    if settings.slot == "selector":
        with torch.no_grad():
            slots = system.selector(x).argmax(1)
    if settings.wrong_slot:
        replaced = torch.rand(len(y), device=y.device) < settings.wrong_slot
        slots = torch.where(replaced, torch.randint_like(y, system.num_classes), slots)
    return slots
