"""Properties of the batched augmentation."""

import pytest
import torch
from torch.nn import functional as F

from robustforge.data.augment import Augment, random_crop, random_erasing, random_flip, random_vertical_flip
from robustforge.types import UserError


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_crop_is_a_window_of_the_padded_image_and_all_windows_occur():
    x = torch.rand(600, 2, 6, 5)
    out = random_crop(x, 2, gen())
    padded = F.pad(x, (2, 2, 2, 2))
    found = []
    for i in range(len(x)):
        hits = [(t, u) for t in range(5) for u in range(5) if torch.equal(padded[i, :, t : t + 6, u : u + 5], out[i])]
        assert len(hits) == 1
        found += hits
    assert len(set(found)) == 25


def test_crop_without_padding_changes_nothing():
    x = torch.rand(3, 1, 4, 4)
    assert random_crop(x, 0, gen()) is x


@pytest.mark.parametrize(("flip", "dim"), [(random_flip, -1), (random_vertical_flip, -2)])
def test_flip_mirrors_half_of_the_images(flip, dim):
    x = torch.rand(4000, 1, 3, 3)
    out = flip(x, gen())
    mirrored = (out == x.flip(dim)).flatten(1).all(1)
    kept = (out == x).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert abs(mirrored.float().mean() - 0.5) < 0.04


def test_erasing_share_area_aspect_and_fill():
    x = torch.full((4000, 2, 40, 40), 0.25)
    out = random_erasing(x, 0.3, gen(), area=(0.1, 0.2), aspect=(0.5, 2.0), fill=1.0)
    hole = out[:, 0] == 1
    assert torch.equal(hole, out[:, 1] == 1)
    assert ((out == 1) | (out == 0.25)).all()
    erased = hole.flatten(1).any(1)
    assert abs(erased.float().mean() - 0.3) < 0.03
    rows, columns = hole[erased].any(2).sum(1), hole[erased].any(1).sum(1)
    # A full rectangle: as many pixels as its bounding box.
    assert torch.equal(hole[erased].sum((1, 2)), rows * columns)
    share = rows * columns / 1600
    assert share.min() > 0.085
    assert share.max() < 0.22
    assert abs(share.mean() - 0.15) < 0.01
    ratio = rows / columns
    assert ratio.min() > 0.42
    assert ratio.max() < 2.4
    # The rectangle reaches every corner of the image, and is never cut by its border.
    assert hole[:, 0, 0].any()
    assert hole[:, -1, -1].any()


def test_erasing_larger_than_the_image_is_cut_to_it():
    out = random_erasing(torch.ones(64, 1, 8, 8), 1.0, gen(), area=(1.0, 1.0), aspect=(4.0, 4.0))
    assert torch.equal((out == 0).flatten(1).sum(1), torch.full((64,), 32))


def test_same_generator_same_result_and_stacked_partner_moves_along():
    augment = Augment(crop=3, flip=True, vertical_flip=True, erasing=1.0, erasing_fill=0.5)
    x, noise = torch.rand(32, 3, 8, 8), torch.rand(32, 3, 8, 8)
    alone = augment(x, gen(5))
    assert torch.equal(alone, augment(x, gen(5)))
    assert not torch.equal(alone, augment(x, gen(6)))
    first, second = augment(torch.cat([x, noise], 1), gen(5)).chunk(2, 1)
    assert torch.equal(first, alone)
    assert torch.equal(second, augment(noise, gen(5)))


def test_default_augment_is_the_identity():
    x = torch.rand(4, 1, 5, 5)
    assert torch.equal(Augment()(x, gen()), x)


@pytest.mark.parametrize(
    "values",
    [
        {"crop": -1},
        {"erasing": 1.5},
        {"erasing_fill": 2.0},
        {"erasing_area": (0.5, 0.1)},
        {"erasing_aspect": (0.0, 1.0)},
    ],
)
def test_values_out_of_range_name_the_key(values):
    with pytest.raises(UserError, match=f"(?i)augment.{next(iter(values))} is"):
        Augment(**values)
