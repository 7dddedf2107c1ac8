"""Copies that went through JPEG are told from originals."""

import io

import numpy as np
import pytest
from PIL import Image

from robustforge.data.reencoded import was_jpeg


@pytest.fixture(scope="module")
def photographs():
    """(20, 3, 32, 32) uint8: smooth shapes with fine grain, as cameras give them."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (20, 3, 8, 8)).repeat(4, 2).repeat(4, 3)
    return np.clip(coarse + rng.normal(0, 6, coarse.shape), 0, 255).astype(np.uint8)


def through_jpeg(images, quality):
    made = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "jpeg", quality=quality)
        made.append(np.asarray(Image.open(file)).transpose(2, 0, 1))
    return np.stack(made)


@pytest.mark.parametrize("quality", [60, 75, 90])
def test_jpeg_copies_are_found(photographs, quality):
    copies = through_jpeg(photographs, quality)
    assert was_jpeg(copies)
    assert was_jpeg((copies / 255).astype(np.float32))


def test_originals_and_what_cannot_be_told_are_not(photographs):
    assert not was_jpeg(photographs)
    assert not was_jpeg(np.zeros_like(photographs)), "flat images have no detail anywhere"
    assert not was_jpeg(through_jpeg(photographs, 75)[:, :1]), "gray"
    assert not was_jpeg(through_jpeg(photographs, 75)[:, :, :12, :12]), "smaller than two blocks"
