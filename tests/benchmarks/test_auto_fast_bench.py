"""The admission test: what it counts, and systems of five kinds."""

import pytest
import torch
from benchmarks import auto_fast as bench
from torch import nn

from robustforge.attacks.core.surface import end_to_end
from robustforge.attacks.ensemble import Sampled
from robustforge.attacks.pgd import PGD
from robustforge.types import DefenseOutput


@pytest.fixture
def system():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    x = torch.rand(40, 1, 8, 8)
    surface = end_to_end(lambda x: DefenseOutput(network(x)), network)
    return bench.System("linear", surface, x, network(x).argmax(1))


def test_a_row_counts_discordant_images(system):
    weak = Sampled("weak", {"pgd": PGD(steps=1)})
    strong = PGD("strong", steps=10, loss="margin")
    row = bench.compare(system, weak, strong)
    mine, theirs = (attack(system.surface, system.x, system.y, bench.THREAT).success for attack in (weak, strong))
    assert f"by auto alone {int((theirs & ~mine).sum())}, by auto_fast alone {int((mine & ~theirs).sum())}" in row.note
    assert row.ratio == pytest.approx(100 * float(theirs.float().mean() - mine.float().mean()), abs=1e-3)
    assert (row.bar, row.higher_is_better) == (0.5, False)
    assert "per 1,000 passes: pgd" in row.note
    assert bench.compare(system, weak, weak).passed


def test_five_kinds_of_victims(monkeypatch):
    monkeypatch.setattr(bench, "_EPOCHS", 0)
    systems = bench.victims()
    assert [system.name for system in systems] == [
        "plain", "adversarially trained", "TRADES", "purifier", "rejecting"
    ]  # fmt: skip
    assert [system.threshold is not None for system in systems] == [False] * 4 + [True]
    for system in systems:
        assert system.surface.system(system.x[:2], system.y[:2]).logits.shape == (2, 10)
    own, others = (
        sum(p.numel() for p in made[0].surface.modules.parameters()) for made in (systems, bench.victims(True))
    )
    assert own != others, "ensembles are put together on other networks"


def test_what_it_measures_is_what_the_config_composes(compose):
    from robustforge.config.instantiate import build

    built, own = build(compose("attack=auto_fast").attack), bench.auto_fast()
    assert dict(built.attacks) == dict(own.attacks)
    assert (list(built.sampled), built.sample, built.spread) == (list(own.sampled), own.sample, own.spread)
