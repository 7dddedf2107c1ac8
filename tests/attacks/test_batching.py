"""The bytes that a graph keeps, by hand, and the batch that follows."""

import torch
from torch import nn

from robustforge.attacks.core.batching import batch_within, graph_bytes
from robustforge.attacks.core.surface import eot
from robustforge.defenses.base import classify


def test_bytes_by_hand():
    """A sigmoid keeps its output; a linear layer with frozen weights keeps nothing of the batch."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.Sigmoid(), nn.Linear(32, 4))
    surface = classify(network)["end_to_end"]
    x, y = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64)
    assert graph_bytes(surface, x, y) == 8 * 32 * 4
    per_image = 1.5 * 32 * 4 + 12 * 16 * 4
    assert batch_within(surface, x, y, 100.5 * per_image, 4096) == 100
    assert batch_within(surface, x, y, 100.5 * per_image, 64) == 64
    assert batch_within(surface, x, y, 1.0, 64) == 1
    assert batch_within(eot(surface, 10), x, y, 100.5 * per_image, 4096) == int(100.5 * per_image // (15 * 128 + 768))


def test_flags_and_modes_stay(trained, images):
    trained.train()
    before = [p.requires_grad for p in trained.parameters()]
    assert graph_bytes(classify(trained)["end_to_end"], *images) > 0
    assert trained.training
    assert [p.requires_grad for p in trained.parameters()] == before
    trained.eval()
