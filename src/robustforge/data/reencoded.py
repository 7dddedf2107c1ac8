"""Whether photographs have been through JPEG: results on copies must not carry the name of the original data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 8
LOOKED_AT = 256  # images, evenly spaced
FAINT = 2.0  # gray levels of a coefficient that only rounding has put there
MORE = 0.2  # of the fine coefficients are faint in JPEG's own blocks than between them; at most 0.1 in other images


def was_jpeg(images: NDArray[np.generic]) -> bool:
    """Whether images look decompressed from JPEG: its quantization leaves 8 x 8 blocks without fine detail.

    Args:
        images: (N, 3, H, W), uint8 or floats in [0, 1]. Other numbers of channels and sizes below 16 are not looked at.

    Returns:
        True where many more fine coefficients vanish in JPEG's blocks than in blocks that lie between them.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
        >>> was_jpeg(noise)
        False
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 2 * BLOCK:
        return False
    some = np.asarray(images[:: max(1, len(images) // LOOKED_AT)], dtype=np.float64)
    some = some if images.dtype == np.uint8 else 255 * some
    brightness = np.tensordot([0.299, 0.587, 0.114], some, axes=(0, 1))
    return _faint(brightness) - _faint(brightness[:, BLOCK // 2 :, BLOCK // 2 :]) > MORE


def _faint(gray: NDArray[np.float64]) -> float:
    """The share of fine coefficients of the 8 x 8 cosine transforms of (N, H, W) that are nearly zero."""
    count, high, wide = len(gray), gray.shape[1] // BLOCK, gray.shape[2] // BLOCK
    blocks = gray[:, : high * BLOCK, : wide * BLOCK].reshape(count, high, BLOCK, wide, BLOCK)
    row = np.arange(BLOCK)
    basis = np.cos(np.pi * row[:, None] * (2 * row + 1) / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    spectrum = np.einsum("ui,nhiwj,vj->nhwuv", basis, blocks, basis)
    fine = np.add.outer(row, row) >= BLOCK + 2
    return float((np.abs(spectrum[..., fine]) < FAINT).mean())
