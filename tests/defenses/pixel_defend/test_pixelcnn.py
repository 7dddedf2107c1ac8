"""PixelDefend's PixelCNN++: what a pixel may see, probabilities that sum to one, and the search for likely images."""

import math

import pytest
import torch

from robustforge.defenses.pixel_defend.logistic_mixture import (
    LogisticMixture,
    bits_per_dimension,
    discretized_logistic,
    likeliest,
    log_likelihood,
    mixture_of,
    parameters_of,
)
from robustforge.defenses.pixel_defend.networks import PixelCNN
from robustforge.defenses.pixel_defend.raster import likelier, purify
from robustforge.defenses.pixel_defend.recent import Recent

SHAPES = [(1, 5, 7), (3, 6, 4)]
LEVELS = torch.arange(256) / 255


def network(shape):
    """Weights larger than new ones, so that what a pixel sees matters."""
    torch.manual_seed(0)
    made = PixelCNN(shape, 6, 2, 3).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(2)
    return made


def images(shape, count=3):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def of_pixel(mixture, row, column):
    parts = (mixture.log_weights, mixture.means, mixture.log_scales, mixture.couplings)
    return LogisticMixture(*(part[..., row, column] for part in parts))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_pixel_sees_those_before_it_and_no_other(shape):
    made, x = network(shape), images(shape, 1).requires_grad_(True)
    mixture = made.mixture(x)
    figures = torch.cat([mixture.log_weights, mixture.means.flatten(1, 2), mixture.log_scales.flatten(1, 2)], 1)
    _, height, width = shape
    for place in range(height * width):
        (gradient,) = torch.autograd.grad(
            figures[:, :, place // width, place % width].square().sum(), x, retain_graph=True
        )
        seen = gradient.abs().sum((0, 1)).flatten()
        assert not seen[place:].any()
        if place % width:
            assert seen[place - 1] > 0
        if place >= width:
            assert seen[place - width] > 0
            # no blind spot to the upper right
            assert place % width == width - 1 or seen[place - width + 1] > 0


def test_probabilities_of_all_gray_levels_sum_to_one():
    mean, log_scale = torch.tensor([-0.3, 0.0, 0.5, 0.7, 2.0]), torch.tensor([-7.0, -1.0, -4.0, 0.0, 1.0])
    logs = discretized_logistic(LEVELS[:, None], mean, log_scale)
    torch.testing.assert_close(logs.exp().sum(0), torch.ones(5), rtol=1e-4, atol=0)
    assert logs.isfinite().all(), "also far from a narrow distribution"
    scale = math.exp(-1.0)
    by_hand = 1 / (1 + math.exp(-(100.5 / 255) / scale)) - 1 / (1 + math.exp(-(99.5 / 255) / scale))
    assert logs[100, 1].exp().item() == pytest.approx(by_hand, rel=1e-4)


def test_a_color_pixel_is_a_distribution_over_all_colors():
    """The channels follow one another: summed over the last channel, the joint probability is that of the others."""
    numbers = torch.randn(1, parameters_of(3, 2), 1, 1, generator=torch.Generator().manual_seed(2))
    mixture = mixture_of(numbers, 3)
    start = torch.tensor([0.2, 0.8])
    x = torch.cat([start.expand(256, 2), LEVELS[:, None]], 1)[..., None, None]
    logs = log_likelihood(LogisticMixture(*(v.expand(256, *v.shape[1:]) for v in vars(mixture).values())), x)
    pair = mixture.log_weights
    for channel in range(2):
        mean = mixture.mean_after(channel, [start[:1].view(1, 1, 1, 1)] * channel)
        pair = pair + discretized_logistic(start[channel], mean, mixture.log_scales[:, channel])
    assert logs.exp().sum().item() == pytest.approx(pair.logsumexp(1).exp().item(), rel=1e-4)


def test_bits_of_a_uniform_distribution():
    assert bits_per_dimension(torch.tensor([-12 * math.log(256)]), 12).item() == pytest.approx(8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_purified_images_are_near_and_each_pixel_is_the_likeliest(shape):
    """Checked by the whole network on the finished image: the pixel-wise passes agree with it."""
    made, x, eps = network(shape), images(shape), 0.1
    x[0, :, 0, 0], x[1, :, 0, 0] = 0.0, 1.0
    purified = purify(made, x, eps)
    assert ((purified - x).abs() <= eps + 1e-5).all()
    torch.testing.assert_close(purified * 255, (purified * 255).round(), rtol=0, atol=1e-4)
    assert (made(purified) > made((x * 255).round() / 255)).all()
    mixture = made.mixture(purified)
    for row in range(shape[1]):
        for column in range(shape[2]):
            found = likeliest(of_pixel(mixture, row, column), x[:, :, row, column], eps)[..., None, None]
            here = of_pixel(mixture, slice(row, row + 1), slice(column, column + 1))
            chosen = purified[:, :, row : row + 1, column : column + 1]
            gap = log_likelihood(here, found) - log_likelihood(here, chosen)
            assert (gap.abs() < 1e-2).all(), "equal up to ties that rounding decides, and the channels after them"


def test_an_image_is_left_alone_where_purification_makes_it_less_likely():
    made, x = network((1, 5, 7)), images((1, 5, 7))
    unmoved, purified = (x * 255).round() / 255, purify(made, x, 0.2)
    x[1], purified[1], unmoved[1] = purified[1].clone(), unmoved[1].clone(), purified[1].clone()
    assert (made(purified) > made(unmoved)).tolist() == [True, False, True]
    kept = likelier(made, x, purified)
    assert torch.equal(kept[[0, 2]], purified[[0, 2]])
    assert torch.equal(kept[1], unmoved[1])
    assert (made(kept) >= made(unmoved)).all()


def test_likeliest_is_the_best_of_all_gray_levels_by_exhaustion():
    mixture = mixture_of(2 * torch.randn(4, parameters_of(1, 3), generator=torch.Generator().manual_seed(3)), 1)
    x = torch.tensor([[0.0], [0.31], [0.52], [1.0]])
    for eps in (0.0, 0.001, 0.2, 1.0):
        found = likeliest(mixture, x, eps)
        for number in range(4):
            logs = torch.logsumexp(
                mixture.log_weights[number]
                + discretized_logistic(LEVELS[:, None], mixture.means[number, 0], mixture.log_scales[number, 0]),
                1,
            )
            near = (LEVELS - x[number]).abs() <= eps + 1e-6
            if not near.any():
                near = (LEVELS - x[number]).abs() == (LEVELS - x[number]).abs().min()
            best = LEVELS[logs.masked_fill(~near, -math.inf).argmax()]
            assert found[number].item() == pytest.approx(best.item(), abs=1e-6)


def test_images_seen_lately_are_not_purified_again():
    made, x = network((1, 5, 7)), images((1, 5, 7), 4)
    asked, recent = [], Recent()

    def function(new):
        asked.append(len(new))
        return (new * 255).round() / 255

    first = recent(function, x, made)
    assert torch.equal(first, (x * 255).round() / 255)
    assert torch.equal(recent(function, x.flip(0), made), first.flip(0))
    mixed = torch.cat([x[2:], 1 - x[:1]])
    assert torch.equal(recent(function, mixed, made), (mixed * 255).round() / 255)
    assert asked == [4, 1]
    with torch.no_grad():
        made.last.bias.add_(1)
    recent(function, x, made)
    assert asked == [4, 1, 4], "another network has other answers"
    small = Recent(bytes_kept=40)  # one image has 35
    for _ in range(2):
        for image in x.split(1):
            small(function, image, made)
    assert asked[3:] == [1] * 8
