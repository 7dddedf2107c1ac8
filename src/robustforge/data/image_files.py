"""One image file to 8-bit pixels: every depth on its own scale, and refused where white is not known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import functional as image_ops

from robustforge.types import UserError

MOST = 1 << 26
"""Pixels of a file, 8192 x 8192: several are decoded at once, and each may take a dozen bytes a pixel on the way."""


def decode(path: Path, shape: Sequence[int]) -> tuple[np.ndarray, bool]:
    """One image, resized so that it covers (H, W) with antialiasing, then cropped at the center.

    Args:
        path: of the file.
        shape: (C, H, W) wanted; C is 1 (gray) or 3.

    Returns:
        uint8 (C, H, W), and whether the file had more than 8 bits a channel, which were rounded.

    Raises:
        UserError: unreadable, too large, several frames, transparent, or pixels whose white is not known.
    """
    channels, height, width = shape
    try:
        with path.open("rb") as handle:
            file = Image.open(handle)
            if file.width * file.height > MOST:
                raise UserError(
                    f"'{path}' has too many pixels ({file.width} x {file.height}): make it smaller, or delete it."
                )
            deep = file.mode[0] in "IF" or ";16" in repr(file.tile)  # color of 16 bits: Pillow keeps the upper 8
            image = _eight_bits(file, path)
            image.load()
            image = image if image.mode == "RGB" else image.convert("RGB")  # which would copy
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"'{path}' has too many pixels ({error}): make it smaller, or delete it.") from error
    # Pillow's decoders of damaged files raise whatever the damage leads them to.
    except Exception as error:
        raise UserError(f"'{path}' is not a readable image ({error}): delete it or fetch it again.") from error
    image = image.convert("L") if channels == 1 else image
    scale = max(height / image.height, width / image.width)
    size = [max(height, round(image.height * scale)), max(width, round(image.width * scale))]
    pixels = np.asarray(image_ops.resize(image, size, antialias=True), np.uint8)
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)  # as torchvision's center_crop
    pixels = pixels[top : top + height, left : left + width]
    return (pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)), deep


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """An image that ``convert("RGB")`` does not cut: Pillow would turn deeper pixels than 255 white."""
    if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a photograph with its own preview
        raise UserError(f"'{path}' holds several frames: save the one that is meant as PNG.")
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise UserError(f"'{path}' has transparent pixels: lay it on a background and save it without transparency.")
    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image, np.float64)
    # A PNG or PGM of mode I is a 16-bit file; in a TIFF, 32-bit integers may mean anything.
    sixteen = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    white = 65535 if sixteen else 1
    # The negated form also refuses NaN, which every comparison calls false.
    if (image.mode == "I" and not sixteen) or not (values.min() >= 0 and values.max() <= white):
        raise UserError(
            f"'{path}' has pixels from {values.min():.4g} to {values.max():.4g} whose white is not known: save it with "
            "8 or 16 bits, or with floats in [0, 1]."
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
