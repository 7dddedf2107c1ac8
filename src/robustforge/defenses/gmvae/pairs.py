"""The pictures of the Gaussian-mixture VAE paper that show images above their reconstructions (Figs. 2 and 4)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface
from robustforge.attacks.penalty import PenaltyDescent
from robustforge.defenses.figures import Picture, Scene
from robustforge.defenses.gmvae.selective import SelectiveClassifier
from robustforge.types import Threat

ANYTHING = Threat("linf", 1.0)
WHITE_BOX = PenaltyDescent(name="white_box", early_stop=False)  # Eq. 10
FOOLING = PenaltyDescent(name="fooling", distance_weight=0.0, start="noise", early_stop=False)  # Eq. 11
EACH = 6  # pairs of a group


@torch.no_grad()
def reconstructions(scene: Scene, classifier: SelectiveClassifier) -> Picture:
    """Fig. 2: the first test images of the first ten classes, and below them what the network makes of them."""
    classes = range(min(10, scene.data.num_classes))
    groups = {f"class {number}": _of_class(scene, number, 8) for number in classes}
    return _pairs(classifier, groups, "test images and rebuilt")


def converged(scene: Scene, classifier: SelectiveClassifier, surface: Surface, steps: int = 100) -> Picture:
    """Fig. 4: where the white-box attack ends, and below it what the network makes of that.

    Args:
        scene: whose test images are attacked.
        classifier: its networks.
        surface: ``white_box``.
        steps: of the attack.

    Notes:
        MNIST's pairs of classes are the paper's, 2 to 6 and 5 to 9, and the fooling images aim at 1 to 6; with other
        numbers of classes the first two objects stand for one another, as in its COIL-100.
    """
    aims = ((2, 6), (5, 9)) if scene.data.num_classes == 10 else ((0, 1), (1, 0))
    groups = {}
    for source, target in aims:
        x = _of_class(scene, source, EACH)
        y = torch.full((len(x),), source, device=x.device)
        groups[f"{source} to {target}"] = _attack(WHITE_BOX, surface, x, y, target, steps) if len(x) else x
    x, y = scene.images(EACH)
    wanted = [1 + number % (scene.data.num_classes - 1) for number in range(EACH)]
    fooling = [_attack(FOOLING, surface, x[i : i + 1], y[i : i + 1], wanted[i], steps) for i in range(len(x))]
    groups[f"noise to {wanted[0]} .. {wanted[-1]}"] = torch.cat(fooling)
    return _pairs(classifier, groups, "Eqs. 10 and 11: attacked and rebuilt")


def _attack(attack: PenaltyDescent, surface: Surface, x: Tensor, y: Tensor, target: int, steps: int) -> Tensor:
    aimed = replace(attack, steps=steps, target=target)
    return aimed(surface, x, y, ANYTHING).x_adv


def _of_class(scene: Scene, number: int, count: int) -> Tensor:
    """(n, C, H, W), at most ``count`` test images of one class."""
    rows = (scene.data.test.labels == number).nonzero().flatten()[:count]
    return scene.data.test.pixels(rows, scene.device)


@torch.no_grad()
def _pairs(classifier: SelectiveClassifier, groups: dict[str, Tensor], title: str) -> Picture:
    """Groups without an image are left out, the others as long as the shortest of them."""
    shown = {label: images for label, images in groups.items() if len(images)}
    least = min(len(images) for images in shown.values())
    upper = torch.stack([images[:least] for images in shown.values()])
    lower = classifier.decoder(classifier.encode(upper.flatten(0, 1))).float().view_as(upper)
    return Picture("pairs", {"upper": upper, "lower": lower.clamp(0, 1), "label": list(shown), "title": title})
