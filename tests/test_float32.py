"""No TensorFloat-32: the flags that GPUs go by, since a CPU has no such factors to look at."""

import pytest
import torch
from torch import nn

import robustforge as rf
from robustforge.cli import job
from robustforge.float32 import full_float32


def flags() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def rounded():
    """A user's own choice, which is put back."""
    before = flags()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    yield
    assert flags() == ("high", True)
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def test_off_inside_the_block_and_back_after_an_error():
    with pytest.raises(KeyboardInterrupt), full_float32():
        assert flags() == ("highest", False)
        raise KeyboardInterrupt


class Watching(nn.Module):
    """A linear classifier that notes the flags of every pass."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(4, 2), set()

    def forward(self, x):
        self.seen.add(flags())
        return self.linear(x.flatten(1))


def test_an_attack_on_ones_own_model_computes_in_full_float32():
    model = Watching()
    x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    rf.attack(model, x, y, eps=0.1)
    assert model.seen == {("highest", False)}


def test_a_run_computes_in_full_float32(compose):
    job.assemble(compose("dataset=digits", "defense=none"))
    found = flags()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    assert found == ("highest", False)
