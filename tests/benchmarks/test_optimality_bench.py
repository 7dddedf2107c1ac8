"""bench.py optimality: the score by hand, the search over budgets, counted passes, every contender once."""

import pytest
import torch
from benchmarks import _contenders, _counted, optimality
from benchmarks._victims import Victim
from torch import nn

from robustforge.types import Threat


class Steep(nn.Module):
    """Class 1 once the first pixel is above 0.5, else class 0; with a gradient."""

    def forward(self, x):
        lead = 40 * (x[:, 0, 0, 0] - 0.5) + 0 * x.sum((1, 2, 3))
        return torch.stack([-lead, lead], 1)


def victim(*first):
    x = torch.zeros(len(first), 1, 2, 2)
    x[:, 0, 0, 0] = torch.tensor(first)
    return Victim("steep", Steep(), x, torch.zeros(len(first), dtype=torch.int64), Threat("linf", 0.1))


def score(name, library, *distances):
    return optimality.Score(_contenders.Contender(name, library), torch.tensor(distances), 1, 1, 1.0)


def test_the_score_by_hand():
    best, near, never = score("a", "ours", 0, 1, 2), score("a", "x", 0, 2, 2), score("b", "x", 0, torch.inf, torch.inf)
    found = optimality.scored([near, never, best], clean=2 / 3)
    # areas 3/3, 4/3 and 4/3 up to the largest reference 2; scale 4/3 - 1
    assert (found[0].contender.attack, found[0].contender.library) == ("a", "ours")
    assert [one.optimality for one in found] == pytest.approx([100, 0, 0], abs=1e-4)
    rows = optimality.compared(found, "l2")
    assert [row.name for row in rows] == ["l2: our best against the others' best", "l2: a"]
    assert all(row.passed for row in rows)
    half = optimality.scored([score("a", "ours", 0, 1.5, 2), best], clean=2 / 3)
    assert half[1].optimality == pytest.approx(50, abs=1e-4)


def test_budgets_are_halved_for_each_image():
    asked, network = _counted.counted(victim(0.4, 0.1))

    def attack(part, eps):
        x = part.x.clone()
        x[:, 0, 0, 0] += eps
        return x

    found = optimality.halved(asked, attack, "linf", network)
    assert found[0] == pytest.approx(0.1, abs=0.5 / 2**_contenders.ROUNDS)
    assert found[1] == pytest.approx(0.4, abs=0.5 / 2**_contenders.ROUNDS)
    assert (found > torch.tensor([0.1, 0.4])).all()
    outside = optimality.halved(asked, lambda part, eps: attack(part, 2 * eps), "linf", network)
    assert outside.isinf().all()


@pytest.mark.parametrize(("each", "tries"), [(10, 7), (5, 14), (30, 7), (0, optimality.MOST_ROUNDS)])
def test_whoever_spends_less_has_more_tries(each, tries):
    asked, network = _counted.counted(victim(0.4, 0.1))
    seen = []

    def attack(part, eps):
        seen.append(len(part.x))
        for _ in range(each):
            part.network(part.x)
        return part.x

    optimality.halved(asked, attack, "linf", network, passes=70)
    assert sum(seen) == tries * 2


def test_passes_are_counted():
    asked, network = _counted.counted(victim(0.4, 0.1))
    leaf = asked.x.clone().requires_grad_(True)
    asked.network(leaf).sum().backward()
    asked.network(asked.x[:1])
    assert (network.forwards, network.backwards) == (3, 2)


def test_images_outside_the_box_are_no_success():
    asked = victim(0.4, 0.1)
    found = optimality.distances(asked, asked.x + torch.tensor([0.2, 1.2])[:, None, None, None], "linf", asked.network)
    assert found.tolist() == pytest.approx([0.2, torch.inf])


@pytest.mark.slow
@pytest.mark.parametrize("norm", list(optimality.LARGEST))
def test_every_contender_runs(trained_victim, norm):
    scores = optimality.measure(trained_victim, norm, 140)
    assert {"ours", "adv-lib", "foolbox"} <= {one.contender.library for one in scores}
    assert scores[0].optimality > 90
    assert all(one.optimality <= 100 + 1e-3 for one in scores)
    assert optimality.table_of(scores, norm, trained_victim).row_count == len(scores)


@pytest.fixture(scope="session")
def trained_victim():
    from benchmarks._victims import small

    return small(robust=False).some(3)
