"""Counter-based draws: addressed by sample, and statistically sound."""

import hashlib

import pytest
import torch

from robustforge.randomness import SampleRandom

WORD = 2**64


def splitmix(x):
    """splitmix64's finalizer in Python's own integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % WORD
    return x ^ (x >> 31)


def reference(seed, name, restart, stream, index, position):
    golden = 0x9E3779B97F4A7C15
    key = int.from_bytes(
        hashlib.blake2b(f"{seed}/{name}/{restart}/{stream}".encode(), digest_size=8).digest(), "little"
    )
    row = splitmix((index * golden + key) % WORD)
    return (splitmix((row + (position + 1) * golden) % WORD) >> 40) / 2**24


def test_is_splitmix64_bit_for_bit():
    index = torch.tensor([0, 1, 7, 59_999, 10**12])
    for seed, name, restart, stream in ((0, "pgd", 0, 0), (3, "trades", 2, 1), (-1, "", 0, 5)):
        drawn = SampleRandom(seed, name, restart).uniform(index, (2, 3), stream)
        for b, i in enumerate(index.tolist()):
            expected = [reference(seed, name, restart, stream, i, p) for p in range(6)]
            assert drawn[b].flatten().tolist() == expected


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_a_sample_draws_the_same_in_any_company(draw):
    whole = getattr(SampleRandom(1, "pgd"), draw)(torch.arange(100), (1, 5, 7))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    shuffled = getattr(SampleRandom(1, "pgd"), draw)(order, (1, 5, 7))
    assert torch.equal(shuffled, whole[order])
    for i in (0, 42, 99):
        assert torch.equal(getattr(SampleRandom(1, "pgd"), draw)(torch.tensor([i]), (1, 5, 7)), whole[i : i + 1])
    # a longer draw begins with the shorter one's numbers: positions are counted, not hashed by shape
    assert torch.equal(getattr(SampleRandom(1, "pgd"), draw)(torch.arange(100), (5,)), whole.flatten(1)[:, :5])


def test_every_part_of_the_address_matters():
    index = torch.arange(50)
    draws = [
        SampleRandom(*address).uniform(index, (40,), stream)
        for address, stream in (
            ((0, "pgd", 0), 0), ((1, "pgd", 0), 0), ((0, "bim", 0), 0), ((0, "pgd", 1), 0), ((0, "pgd", 0), 1),
            ((0, "pgd", 0), 2),
        )
    ]  # fmt: skip
    draws.append(SampleRandom(0, "pgd").uniform(index + 50, (40,)))
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert (a == b).float().mean() < 0.001
            correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
            assert correlation.abs() < 4 / a.numel() ** 0.5


def test_uniform_is_uniform():
    drawn = SampleRandom(0, "pgd").uniform(torch.arange(500), (1, 20, 20))
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    values, count = drawn.flatten().double().sort().values, drawn.numel()
    steps = torch.arange(1, count + 1, dtype=torch.float64) / count
    assert (values - steps).abs().max() < 1.95 / count**0.5  # Kolmogorov-Smirnov at 0.1 %
    assert values.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / count) ** 0.5)
    assert values.var() == pytest.approx(1 / 12, rel=0.01)
    # within a sample and between samples, neighbors know nothing of each other
    flat = drawn.flatten(1)
    for a, b in ((flat[:, 1:], flat[:, :-1]), (flat[1:], flat[:-1])):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 4 / count**0.5


def test_normal_moments():
    drawn = SampleRandom(0, "trades").normal(torch.arange(500), (400,)).double()
    count = drawn.numel()
    assert drawn.isfinite().all()
    assert drawn.mean().abs() < 4 / count**0.5
    assert drawn.var() == pytest.approx(1, abs=0.02)
    assert (drawn**3).mean().abs() < 0.03
    assert (drawn**4).mean() == pytest.approx(3, abs=0.1)


def test_normal_is_finite_at_both_ends_of_the_uniform():
    # of the 2**24 values the largest is drawn here, at channel 1, row 19, column 22
    random = SampleRandom(0, "trades")
    index = torch.tensor([415])
    assert random.uniform(index, (3, 32, 32))[0, 1, 19, 22] == 1 - 2.0**-24
    assert random.normal(index, (3, 32, 32)).isfinite().all()


@pytest.mark.parametrize("end", [0.0, 1 - 2.0**-24])
def test_normal_tails(monkeypatch, end):
    monkeypatch.setattr(SampleRandom, "uniform", lambda *_: torch.tensor([end]))
    assert 5 < SampleRandom(0, "pgd").normal(torch.zeros(1), (1,)).abs() < 6
