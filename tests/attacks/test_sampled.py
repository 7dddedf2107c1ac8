"""Attacks tried on a sample first: who is drawn, when all are attacked, and what the result says of every member."""

import pytest
import torch
from torch import nn

from robustforge.attacks.apgd import APGD
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.ensemble import Sampled, WorstCase
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.types import DefenseOutput, Threat, UserError

THREAT = Threat("linf", 0.06)
EXACT = {"precision": "float32"}
FIRST = {"fgsm": FGSM(**EXACT)}
STRONG = PGD("strong", steps=20, loss="margin", **EXACT)


def masked(network):
    """Its gradient is zero, its answers are the network's."""
    return Surface(
        "s", lambda x, _: (network(x).detach() + 0 * x.sum(),), lambda x, _: DefenseOutput(network(x)), network
    )


def test_where_a_tried_image_breaks_all_others_are_attacked(victim, images):
    x, y = images
    whole = WorstCase("w", {**FIRST, "strong": STRONG})(victim, x, y, THREAT)
    made = Sampled("s", {**FIRST, "strong": STRONG}, sampled=["strong"], sample=0.5)(victim, x, y, THREAT)
    for name in ("x_adv", "success", "forwards", "backwards"):
        assert torch.equal(getattr(made, name), getattr(whole, name))
    for mine, theirs in zip(made.members, whole.members, strict=True):
        assert (mine.name, mine.sampled) == (theirs.name, False)
        for name in ("attacked", "broken", "forwards", "backwards"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name))


def test_where_none_breaks_the_others_are_left_alone(victim, images):
    x, y = images
    weak = {"strong": STRONG, "weak": FGSM("weak", **EXACT)}
    made = Sampled("s", weak, sampled=["weak"], sample=0.5)(victim, x, y, THREAT)
    strong, last = made.members
    survivors = int((~made.success).sum())
    assert not last.broken.any()
    assert last.sampled
    assert 0 < int(last.attacked.sum()) < survivors
    assert not (last.attacked & strong.broken).any()
    assert torch.equal(last.backwards, last.attacked.long())
    # the draw goes by the sample number, whatever the batch
    index = torch.arange(len(x))
    half = Sampled("s", weak, sampled=["weak"], sample=0.5)(victim, x[32:], y[32:], THREAT, index=index[32:])
    assert torch.equal(half.members[1].attacked, last.attacked[32:])
    everyone = Sampled("s", weak, sampled=["weak"], sample=1.0)(victim, x, y, THREAT)
    assert int(everyone.members[1].attacked.sum()) == survivors
    assert not everyone.members[1].sampled


def test_a_share_of_broken_ones_may_be_tolerated(victim, images):
    x, y = images
    tolerant = Sampled("s", {**FIRST, "strong": STRONG}, sampled=["strong"], sample=0.5, spread=0.99)
    last = tolerant(victim, x, y, THREAT).members[1]
    assert last.sampled
    assert last.broken.any()


def test_masked_gradients_are_always_tried(trained, images):
    x, y = images
    parts = {"pgd": PGD(steps=2, **EXACT), "square": Square(n_queries=60)}
    made = Sampled("s", parts, sampled=["square"], sample=0.0)(masked(trained), x, y, Threat("linf", 0.15))
    assert made.members[1].broken.any()
    assert torch.equal(made.members[1].attacked, ~(trained(x).argmax(1) != y) & ~made.members[0].broken)
    seen = Sampled("s", parts, sampled=["square"], sample=0.0)
    surface = Surface("s", lambda x, _: (trained(x),), lambda x, _: DefenseOutput(trained(x)), trained)
    assert not seen(surface, x, y, Threat("linf", 0.15)).members[1].attacked.any()


def test_members_add_up_and_wrong_images_are_nobodys(victim, trained, images):
    x, y = images[0], images[1].clone()
    y[:5] = (trained(x[:5]).argmax(1) + 1) % 10
    parts = {"t": APGD("t", steps=3, loss="dlr", n_target_classes=3, **EXACT), **FIRST, "strong": STRONG}
    made = WorstCase("w", parts)(victim, x, y, THREAT)
    assert [member.name for member in made.members] == ["t", "fgsm", "strong"]
    for name in ("forwards", "backwards"):
        assert torch.equal(sum(getattr(member, name) for member in made.members), getattr(made, name))
    broken = torch.stack([member.broken for member in made.members]).int().sum(0)
    assert broken.max() == 1
    assert torch.equal(broken == 1, made.success & (trained(x).argmax(1) == y))
    assert made.members[0].attacked.all()
    assert not made.members[2].attacked[:5].any()
    assert PGD(steps=1)(victim, x[:2], y[:2], THREAT).members == ()
    assert len(WorstCase("w", parts)(victim, x[:0], y[:0], THREAT).members) == 1, "nothing was left for the others"


@pytest.mark.parametrize(
    "settings", [{"sampled": ["nobody"]}, {"sample": 1.5}, {"sample": -0.1}, {"spread": 1.0}, {"attacks": {}}]
)
def test_impossible_settings(settings):
    with pytest.raises(UserError):
        Sampled(**{"name": "s", "attacks": FIRST, **settings})


def test_standard_takes_it_in_autos_place(compose):
    cfg = compose("protocol=standard", "attack@protocol.suites.standard.attacks.auto=auto_fast")
    assert cfg.protocol.suites.standard.attacks.auto.name == "auto_fast"
    assert "apgd_ce" not in cfg.protocol.suites.standard.attacks.auto.attacks, "nothing of auto is left"


def test_the_config(compose):
    from robustforge.config.instantiate import build

    fast = build(compose("attack=auto_fast").attack)
    assert list(fast.attacks) == ["md", "apgd_t", "apgd_t_rest", "fab_t", "square"]
    assert [fast.attacks[key].n_target_classes for key in ("apgd_t", "apgd_t_rest")] == [3, 9]
    assert fast.attacks["apgd_t"].order == fast.attacks["apgd_t_rest"].order == "malt"
    assert list(fast.sampled) == ["apgd_t_rest", "fab_t", "square"]
    assert build(compose("attack=pma").attack).space == "probabilities"
    surface = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    result = fast(surface, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), Threat("linf", 1.0))
    assert result.x_adv.shape == (2, 1, 4, 4)
