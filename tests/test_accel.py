"""Private names of PyTorch: asked where they exist, and a safe answer where they do not."""

import pytest
import torch

from robustforge.accel import fast_bf16, under_vmap
from robustforge.nn.flatten import flatten_maps

CPU = torch.device("cpu")
NAMES = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


@pytest.mark.parametrize("answers", [(True, True), (True, False), (False, True), (False, False)])
def test_either_instruction_set_is_fast(monkeypatch, answers):
    for name, answer in zip(NAMES, answers, strict=True):
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer)
    assert fast_bf16(CPU) == any(answers)


@pytest.mark.parametrize("missing", NAMES)
def test_a_cpu_that_cannot_be_asked_is_not_fast(monkeypatch, missing):
    monkeypatch.setattr(torch.cpu, NAMES[0], lambda: False)
    monkeypatch.delattr(torch.cpu, missing)
    assert fast_bf16(CPU) is False


@pytest.mark.parametrize("emulated_only", [True, False])
def test_emulation_on_a_gpu_is_not_fast(monkeypatch, emulated_only):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or not emulated_only
    )
    assert fast_bf16(torch.device("cuda")) == (not emulated_only)
    assert fast_bf16(torch.device("meta")) is False


def test_vmap_is_noticed():
    seen = []
    torch.func.vmap(lambda x: seen.append(under_vmap(x)) or x)(torch.zeros(2, 3))
    assert seen == [True]
    assert under_vmap(torch.zeros(2, 3)) is False


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_are_flattened_alike_where_vmap_cannot_be_asked_about(monkeypatch, layout):
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=layout).requires_grad_(True)
    expected = flatten_maps(x)
    monkeypatch.delattr(torch._C._functorch, "is_batchedtensor")
    assert under_vmap(x) is True
    assert torch.equal(flatten_maps(x), expected)
    torch.func.vmap(flatten_maps)(torch.rand(2, 2, 3, 4, 5))
