"""Networks under training through torch.compile: the same weights, names and calls afterwards."""

from functools import partial

import torch
from torch import nn

from robustforge.callbacks.compiling import CompileNetworks
from robustforge.defenses.base import Defense
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import Training
from robustforge.types import DefenseOutput


class Network(nn.Module):
    """Of its own, because torch 2.10 does not compile a bare nn.Sequential in place."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Linear(Defense):
    """A linear classifier."""

    def __init__(self):
        super().__init__(training=Training(1, partial(torch.optim.SGD, lr=0.01), constant))
        torch.manual_seed(0)
        self.network = Network()

    def forward(self, x):
        return DefenseOutput(self.network(x))

    def losses(self, batch):
        return {"cross_entropy": nn.functional.cross_entropy(self.network(batch.x), batch.y)}


def test_compiled_training_ends_with_the_same_weights(run):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    plain = run(Linear(), store="plain").defense
    compiled = run(Linear(), store="compiled", callbacks=[CompileNetworks(backend)]).defense
    assert graphs
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value)
    found = len(graphs)
    compiled(torch.rand(5, 1, 28, 28))
    assert len(graphs) == found, "the evaluation is not compiled"
