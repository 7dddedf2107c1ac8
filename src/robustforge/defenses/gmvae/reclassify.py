"""Reclassification by the decoder alone (Ghosh, Losalka & Black, AAAI 2019, Eq. 9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustforge.accel import fast_bf16
from robustforge.defenses.gmvae.networks import reconstruction_error

LARGEST = 2048  # images decoded at a time


def search_in_bf16(precision: str, device: torch.device) -> bool:
    """Whether a search with this ``precision`` (``auto``, ``float32``, ``bf16``) decodes in bf16."""
    return precision == "bf16" or (precision == "auto" and fast_bf16(device))


def search_latents(
    decoder: nn.Module, starts: Tensor, x: Tensor, steps: int, lr: float, bf16: bool = False
) -> tuple[Tensor, Tensor]:
    """The latent that decodes to the nearest image: argmin_z |g(z) - x|^2.

    Args:
        decoder: (n, k) -> (n, C, H, W).
        starts: (B, S, k) first latents of every image; all S searches run side by side.
        x: (B, C, H, W) images.
        steps: of Adam.
        lr: its step size, latent units.
        bf16: run the decoder in bf16 on the way; which start ended best is decided in float32 all the same.

    Returns:
        ((B, k) the best latent met from any start, (B,) its squared error, in float32).

    Notes:
        The paper leaves p open: the norm is Euclidean, squared (the same minimizer).
    """
    size = max(1, LARGEST // starts.shape[1])
    found = [
        _search(decoder, some, images, steps, lr, bf16)
        for some, images in zip(torch.split(starts, size), torch.split(x, size), strict=True)
    ]
    if not found:
        return starts[:, 0], x.new_zeros(0)
    latents, errors = (torch.cat(detector_scores) for detector_scores in zip(*found, strict=True))
    return latents, errors


def _search(decoder: nn.Module, starts: Tensor, x: Tensor, steps: int, lr: float, bf16: bool) -> tuple[Tensor, Tensor]:
    count, searches, latent = starts.shape
    with torch.inference_mode(False), torch.enable_grad():
        wanted = x.detach().clone().repeat_interleave(searches, 0)
        z = starts.detach().clone().reshape(-1, latent).requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=lr)  # elementwise, so that searches do not touch one another
        best, best_error = z.detach().clone(), torch.full((len(z),), float("inf"), device=z.device)
        for step in range(steps + 1):
            with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
                rebuilt = decoder(z)
            error = reconstruction_error(wanted, rebuilt)
            better = error.detach() < best_error
            best = torch.where(better[:, None], z.detach(), best)
            best_error = torch.where(better, error.detach(), best_error)
            if step < steps:
                (z.grad,) = torch.autograd.grad(error.sum(), z)
                optimizer.step()
        if bf16 and not bool(z.isfinite().all()):
            return _search(decoder, starts, x, steps, lr, False)
        if bf16:
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                best_error = reconstruction_error(wanted, decoder(best))
        errors = best_error.view(count, searches)
        choice = errors.argmin(1)
        rows = torch.arange(count, device=z.device)
        return best.view(count, searches, latent)[rows, choice], errors[rows, choice]
