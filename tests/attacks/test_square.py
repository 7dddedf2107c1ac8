"""Square: schedule, windows and kernel by hand; it needs no gradient."""

import pytest
import torch

from robustforge.attacks import square
from robustforge.attacks.core.restarts import room_for
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.attacks.square_moves import kernel, l2_propose, l2_start, linf_propose, linf_start
from robustforge.randomness import SampleRandom
from robustforge.types import DefenseOutput, Threat, UserError


def test_sizes_by_hand():
    attack = Square(n_queries=10_000, p_init=0.8)
    # the share of the image is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries
    expected = {0: 0.8, 10: 0.8, 11: 0.4, 50: 0.4, 51: 0.2, 201: 0.1, 501: 0.05, 1001: 0.025, 2001: 0.0125,
                4001: 0.00625, 6001: 0.003125, 8001: 0.0015625}  # fmt: skip
    for number, share in expected.items():
        assert attack.side(number, 100, 100) == round((share * 10_000) ** 0.5)
    assert Square(n_queries=5000).side(6, 100, 100) == attack.side(12, 100, 100)
    assert Square(n_queries=5000, resc_schedule=False).side(6, 100, 100) == attack.side(6, 100, 100)
    assert attack.side(9999, 8, 8) == 1
    assert Square(p_init=1.0).side(0, 4, 40) == 4


def test_stripes_and_windows_of_the_linf_ball():
    clean = torch.rand(6, 3, 9, 7, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    index, random = torch.arange(6), SampleRandom(0, "s")
    start = linf_start(clean, index, random, 0.1)
    signs = (start - clean) / 0.1
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs))
    torch.testing.assert_close(signs, signs[:, :, :1].expand_as(signs))  # constant along columns
    assert signs.unique().numel() >= 2
    draw = random.uniform(index, (8,), stream=1)
    proposal, changed = linf_propose(start, clean, draw, 3, 0.1)
    for k, row in enumerate(changed.tolist()):
        top, left = int(draw[row, 0] * 7), int(draw[row, 1] * 5)
        expected = start[row].clone()
        for channel in range(3):
            sign = -1 if draw[row, 5 + channel] < 0.5 else 1
            window = (channel, slice(top, top + 3), slice(left, left + 3))
            expected[window] = clean[row][window] + 0.1 * sign
        torch.testing.assert_close(proposal[k], expected)
        assert not torch.equal(proposal[k], start[row])
    # the same windows again change nothing
    start[changed] = proposal
    assert len(linf_propose(start, clean, draw, 3, 0.1)[1]) == 0


def test_kernel_by_hand():
    # rings around (0, 1) and (1, 1) of a 1 x 3 and a 2 x 3 bump: 1 + 1/4 in the middle, 1/4 next to it
    raw = torch.tensor([[0.25, 1.25, 0.25], [-0.25, -0.25, -0.25], [-0.25, -1.25, -0.25]])
    torch.testing.assert_close(kernel(3), raw / raw.norm())
    for side in (1, 2, 5, 8, 21):
        assert kernel(side).shape == (side, side)
        assert float(kernel(side).norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (4, 3, 17, 23), (3, 3, 4, 6), (2, 1, 2, 2)])
def test_moves_of_the_l2_ball_spend_all_of_it(shape):
    clean = torch.full(shape, 0.5)
    index, random, eps = torch.arange(shape[0]), SampleRandom(0, "s"), 0.2
    x = l2_start(clean, index, random, eps)
    for number, side in enumerate((9, 5, 3, 1), 1):
        torch.testing.assert_close((x - clean).flatten(1).norm(dim=1), torch.full((shape[0],), eps))
        before = x.clone()
        x, asked = l2_propose(x, clean, random.uniform(index, (5 + shape[1],), stream=number), side, eps)
        assert asked.tolist() == list(range(shape[0]))
        assert (x != before).flatten(1).any(1).all()


def masked(network):
    """The network behind 8 gray levels: its gradient is zero almost everywhere."""

    def logits(x, _):
        return network((x * 8).round() / 8)

    return Surface("masked", lambda x, y: (logits(x, y),), lambda x, y: DefenseOutput(logits(x, y)), network)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 3.0)])
def test_breaks_what_masks_its_gradients(trained, images, norm, eps):
    surface, x, y = masked(trained), images[0][:32], images[1][:32]
    pgd = PGD(steps=40)(surface, x, y, Threat(norm, eps)).success
    square = Square(n_queries=300)(surface, x, y, Threat(norm, eps))
    assert pgd.sum() < 0.35 * len(y)
    assert square.success.sum() > 0.6 * len(y)
    assert square.backwards.sum() == 0
    assert square.trace is None


def test_asks_the_deployed_system_and_not_the_surface(trained, images):
    x, y = images[0][:8], images[1][:8]

    def fail(x, y):
        raise AssertionError("a score-based attack has no business here")

    surface = Surface("s", fail, lambda x, _: DefenseOutput(trained(x)), trained)
    assert Square(n_queries=50)(surface, x, y, Threat("linf", 0.2)).success.any()


def test_a_detector_is_evaded_by_lowering_the_risk(trained, images):
    x, y = images[0][:32], images[1][:32]

    def system(x, _):
        # what digits never do: bright along the left edge
        return DefenseOutput(trained(x), risk=x[:, 0, :, 0].mean(1))

    surface, eps = Surface("s", lambda x, _: (trained(x),), system, trained), 0.12
    attack, threshold = Square(n_queries=300), 0.03
    result = attack(surface, x, y, Threat("linf", eps), threshold=threshold)
    unaware = attack(surface, x, y, Threat("linf", eps)).x_adv
    slipped_by = (trained(unaware).argmax(1) != y) & (system(unaware, y).risk <= threshold)
    assert torch.equal(
        result.success, (trained(result.x_adv).argmax(1) != y) & (system(result.x_adv, y).risk <= threshold)
    )
    assert result.success.float().mean() > slipped_by.float().mean() + 0.05


def test_queries_and_restarts(victim, images):
    x, y, threat = *images, Threat("linf", 0.06)
    few = Square("s", n_queries=30)(victim, x, y, threat)
    many = Square("s", n_queries=30, restarts=4)(victim, x, y, threat)
    assert (many.success >= few.success).all()
    assert many.success.sum() > few.success.sum()
    standing = ~few.success
    assert (few.forwards <= 1 + 30 + 30).all()
    # proposals that change nothing cost no pass
    assert few.forwards[standing].float().mean() < 31
    assert few.forwards[standing].min() > 5


@pytest.mark.parametrize("settings", [{"n_queries": 0}, {"restarts": 0}, {"p_init": 0}, {"p_init": 1.5}])
def test_settings_that_would_disarm_it_are_refused(settings):
    with pytest.raises(UserError, match=r"Square\.\w+ is .*: give a "):
        Square(**settings)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 1.0), ("l1", 8.0)])
def test_queries_answered_in_one_pass_are_what_they_would_be_one_by_one(victim, images, norm, eps, monkeypatch):
    x, y = images[0][:12], images[1][:12]
    attack = Square(n_queries=130)
    together = attack(victim, x, y, Threat(norm, eps))
    monkeypatch.setattr(square, "_AHEAD", 1)
    single = attack(victim, x, y, Threat(norm, eps))
    same = torch.isclose(together.x_adv, single.x_adv, atol=1e-5).flatten(1).all(1)
    assert same.sum() >= len(x) - 1  # a value that ties but for rounding, which goes by the size of a batch
    assert torch.equal(together.success, single.success)
    assert together.forwards.sum() < 1.5 * single.forwards.sum()


def test_no_answer_is_thrown_away_where_the_runs_fill_a_pass(victim, images):
    x, y = images[0][:8], images[1][:8]
    result = Square(n_queries=60)(victim, x, y, Threat("linf", 0.01))
    assert not result.success.all()
    assert (result.forwards <= 60 + 1).all(), "one for the start, and one a query at most"
    with room_for(64):
        alone = Square(n_queries=60)(victim, x, y, Threat("linf", 0.01))
    assert torch.equal(alone.x_adv, result.x_adv)
    assert alone.forwards.sum() > result.forwards.sum(), "fewer passes, of more answers"
