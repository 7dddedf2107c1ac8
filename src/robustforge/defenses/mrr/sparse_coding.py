"""Sparse codes of image patches: batched orthogonal matching pursuit and one dictionary a class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCORES = ("residual", "psnr")
_DONE = 1e-12  # a residual correlation below this share of the signal is rounding


def orthogonal_matching_pursuit(signals: Tensor, atoms: Tensor, nonzeros: int) -> Tensor:
    """Greedy sparse codes: the atom that fits the residual best joins, all coefficients are refitted.

    Pati, Rezaiifar & Krishnaprasad 1993; with the Gram matrix in place of residuals as in Rubinstein, Zibulevsky & Elad
    2008. All signals advance together, so that there are ``nonzeros`` steps in all.

    Args:
        signals: (..., P, d).
        atoms: (..., A, d) of unit length, one dictionary for each leading index.
        nonzeros: coefficients a signal, at most min(A, d).

    Returns:
        (..., P, A) codes of the signals' type, computed in float64; a signal that is matched early has fewer nonzeros.
    """
    y, d = signals.double(), atoms.double()
    gram = d @ d.mT
    fit = y @ d.mT  # (..., P, A)
    residual, chosen = fit, torch.zeros_like(fit, dtype=torch.bool)
    support = torch.zeros(*fit.shape[:-1], 0, dtype=torch.int64, device=fit.device)
    codes = torch.zeros_like(fit)
    floor = _DONE * y.norm(dim=-1, keepdim=True).clamp_min(1e-300)
    active = torch.ones_like(fit[..., :1], dtype=torch.bool)
    for _ in range(nonzeros):
        best, atom = residual.abs().masked_fill(chosen, -1.0).max(-1, keepdim=True)
        active = active & (best > floor)
        chosen = chosen.scatter(-1, atom, True)
        support = torch.cat([support, atom], -1)
        weights = _refit(gram, fit, support)
        codes = torch.where(active, torch.zeros_like(fit).scatter(-1, support, weights), codes)
        residual = fit - codes @ gram
        if not bool(active.any()):
            break
    return codes.to(signals.dtype)


def _refit(gram: Tensor, fit: Tensor, support: Tensor) -> Tensor:
    """(..., P, t) least-squares coefficients on the chosen atoms ``support`` (..., P, t)."""
    atoms = gram.shape[-1]
    pairs = support[..., :, None] * atoms + support[..., None, :]  # into the flattened Gram matrix
    flat = gram.flatten(-2)
    inner = torch.take_along_dim(flat, pairs.flatten(-3), -1).view(pairs.shape)
    # a repeated atom would make this singular; the ridge is far below what is compared anywhere
    inner = inner + 1e-12 * torch.eye(support.shape[-1], dtype=inner.dtype, device=inner.device)
    weights: Tensor = torch.linalg.solve(inner, torch.take_along_dim(fit, support, -1).unsqueeze(-1))
    return weights.squeeze(-1)


def patches_of(x: Tensor, side: int, stride: int) -> Tensor:
    """(B, C, H, W) -> (B, P, C * side * side) patches; edges are repeated where the stride does not fit."""
    height, width = x.shape[2:]
    pad = [(-(size - side)) % stride for size in (height, width)]
    return F.unfold(F.pad(x, (0, pad[1], 0, pad[0]), mode="replicate"), side, stride=stride).mT


class ClassDictionaries(nn.Module):
    """How badly the dictionary of a class explains an image.

    Args:
        num_classes: K.
        channels: C of the images.
        side: of the square patches, pixels.
        stride: between patches, pixels; ``side`` for patches that do not overlap.
        atoms: of each dictionary.
        nonzeros: coefficients a patch.
        score: ``residual``, the L2 norm of image minus reconstruction, or ``psnr``, minus the peak signal-to-noise
            ratio in decibels. Both rank images alike.
    """

    atoms: Tensor
    means: Tensor
    scales: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        side: int = 7,
        stride: int = 7,
        atoms: int = 225,
        nonzeros: int = 5,
        score: str = "residual",
    ) -> None:
        super().__init__()
        self.side, self.stride, self.nonzeros, self.score = side, stride, nonzeros, score
        length = channels * side * side
        self.register_buffer("atoms", torch.zeros(num_classes, atoms, length))
        self.register_buffer("means", torch.zeros(num_classes, length))
        self.register_buffer("scales", torch.ones(num_classes))

    @torch.no_grad()
    def load(self, label: int, atoms: Sequence[Sequence[float]] | Tensor, mean: Tensor, scale: float) -> None:
        """Sets the dictionary of one class: atoms (A, d), brought to unit length, for patches (x - mean) / scale."""
        self.atoms[label] = F.normalize(torch.as_tensor(atoms).to(self.atoms), dim=1)
        self.means[label], self.scales[label] = mean.to(self.means), scale

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """(B,) scores of images (B, C, H, W) under the dictionaries of classes ``label`` (B,); higher fits worse.

        Notes:
            The codes are constants for differentiation. That loses nothing: they minimize the residual on their
            support, so that its gradient in the image is the residual itself (envelope theorem) wherever the support
            stays the same. The usual identity on the way back would cancel against the image and leave exactly zero.
        """
        patches = patches_of(x.float(), self.side, self.stride)
        scale, mean, atoms = self.scales[label, None, None], self.means[label, None], self.atoms[label]
        # also under autocast in float32, as the thresholds
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            codes = orthogonal_matching_pursuit((patches - mean) / scale, atoms, self.nonzeros)
            rebuilt = codes @ atoms * scale + mean
        error = (patches - rebuilt).square().flatten(1)
        if self.score == "psnr":
            return 10 * error.mean(1).clamp_min(1e-12).log10()
        return (error.sum(1) + 1e-12).sqrt()
