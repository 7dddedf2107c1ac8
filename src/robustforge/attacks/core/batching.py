"""How many images fit a memory bound: measured on two images, not guessed."""

from __future__ import annotations

import torch
from torch import Tensor

from robustforge.attacks.core.surface import Surface, frozen

# iterates, gradients and the engine's copies of the images, beside what the graph keeps, and the backward pass's own
_COPIES, _BACKWARD = 12, 1.5


def graph_bytes(surface: Surface, x: Tensor, y: Tensor) -> int:
    """Bytes that one forward pass keeps for its backward pass, parameters left out.

    Args:
        surface: what is differentiated.
        x: (B, C, H, W) in [0, 1].
        y: (B,) labels.
    """
    seen: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in surface.modules.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    kept = []  # as long as the graph lives no storage is used twice
    with frozen(surface.modules), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept.append(surface.attacker_logits(x.clone().requires_grad_(True).clone(), y))
    return sum(seen.values())


def batch_within(surface: Surface, x: Tensor, y: Tensor, bound: float, most: int) -> int:
    """The largest batch that an attack on ``surface`` may have, between 1 and ``most``.

    Args:
        surface: what is differentiated.
        x: (2, C, H, W), two images to measure with.
        y: (2,) labels.
        bound: bytes.
        most: cap.

    Notes:
        In float32. The graph's share is the difference between two images and one, so that what does not grow with the
        batch is not counted; the backward pass is taken to need half as much again.
    """
    two, one = graph_bytes(surface, x[:2], y[:2]), graph_bytes(surface, x[:1], y[:1])
    per_image = surface.draws * _BACKWARD * max(0, two - one) + _COPIES * x[0].numel() * x.element_size()
    return max(1, min(most, int(bound // per_image)))
