"""Table 4 of the paper, layer by layer, against the networks that are built; where it cannot be meant, what is built."""

import re

import pytest
import torch
from torch import nn

from robustforge.defenses.memdef.networks import TargetClassifier, decoder, encoder
from robustforge.papers.printed import load_paper_table, paper_row

GRAY, COLOR = (1, 28, 28), (3, 32, 32)
CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def printed(row):
    """(kind of layer, what comes after it, its numbers) of every line of a row."""
    found = []
    for line in paper_row(load_paper_table("memdef_table4"), row)["layers"]:
        kind, *after = re.sub(r" [\d(].*", "", line).split(" + ")
        found.append((kind, after, [int(n) for n in re.findall(r"\d+", line.replace("2D", "").replace("2d", ""))]))
    return found


def activations(network):
    """What follows each convolution or dense layer, batch normalization and dropout left out."""
    found = []
    for module in network:
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            found.append([])
        elif found and isinstance(module, (nn.LeakyReLU, nn.Sigmoid, nn.ReLU, nn.MaxPool2d)):
            found[-1].append(type(module).__name__)
    return found


def layers(network, *kinds):
    return [module for module in network if isinstance(module, kinds or CONVOLUTIONS)]


def test_gray_encoder_is_the_printed_one():
    network = encoder(GRAY)
    for (kind, _, (filters, *kernel, stride)), layer in zip(
        printed("Fashion-MNIST encoder"), layers(network), strict=True
    ):
        assert kind == "Conv.2D"
        assert (layer.out_channels, list(layer.kernel_size), layer.stride[0]) == (filters, kernel, stride)
    assert activations(network) == [after for _, after, _ in printed("Fashion-MNIST encoder")]
    assert network(torch.zeros(2, *GRAY)).shape == (2, 1024)


def test_gray_decoder_has_the_printed_numbers_as_its_inputs():
    network = decoder(GRAY)
    lines = printed("Fashion-MNIST decoder")
    for (kind, _, (filters, *kernel, stride)), layer in zip(lines, layers(network), strict=True):
        assert kind == "Conv.Trans.2D"
        assert (layer.in_channels, list(layer.kernel_size), layer.stride[0]) == (filters, kernel, stride)
    assert activations(network) == [after for _, after, _ in lines]
    assert layers(network)[-1].out_channels == 1  # read as outputs, the last line would give 16 channels
    assert network(torch.zeros(2, 1024)).shape == (2, *GRAY)


@pytest.mark.parametrize("reading", ["b", "c"])
@pytest.mark.parametrize(("part", "build"), [("encoder", encoder), ("decoder", decoder)])
def test_color_networks_have_the_printed_filters_as_their_outputs(reading, part, build):
    network, lines = build(COLOR, reading), printed(f"CIFAR-10 {part}")
    assert [layer.out_channels for layer in layers(network)] == [numbers[0] for _, _, numbers in lines]
    assert activations(network) == [after for _, after, _ in lines]
    # "x 2 x 1" as kernel 2, stride 1 would leave 28 x 28 pixels and a latent of 200,704: it is read as stride 2
    assert all(layer.stride == (2, 2) for layer in layers(network))
    start = torch.zeros(2, *COLOR) if part == "encoder" else torch.zeros(2, 1024)
    assert network(start).shape == ((2, 1024) if part == "encoder" else (2, *COLOR))


@pytest.mark.parametrize(("shape", "first"), [(GRAY, 256), (COLOR, 400)])
def test_classifier_b_is_the_printed_one_but_for_what_its_first_dense_layer_takes(shape, first):
    network, lines = TargetClassifier(shape, 10), printed("Target classifier")
    for (_, _, numbers), layer in zip(lines[:2], layers(network), strict=True):
        assert [layer.out_channels, layer.kernel_size[0], layer.stride[0]] == numbers
    dense = [[layer.in_features, layer.out_features] for layer in layers(network, nn.Linear)]
    assert dense == [[first, 256], *(numbers for _, _, numbers in lines[3:])]
    assert [sorted(found) for found in activations(network)] == [sorted(after) for _, after, _ in lines]
