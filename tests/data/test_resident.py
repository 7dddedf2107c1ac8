"""Properties of splits and of the loader."""

import numpy as np
import pytest
import torch

from robustforge.data.resident import ResidentLoader, Split, hold_out
from robustforge.types import UserError


def make(count):
    """Images whose first pixel is their position, below 256."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Split(images, torch.arange(count) * 3)


def indices(loader):
    return torch.cat([batch["index"] for batch in loader])


def test_batches_are_aligned_and_cover_everything_once():
    loader = ResidentLoader(make(53), 8, shuffle=True, seed=1)
    batches = list(loader)
    assert len(batches) == len(loader) == 7
    assert [batch["batch"] for batch in batches] == list(range(7))
    for batch in batches:
        assert batch["x"].dtype == torch.uint8
        assert torch.equal(batch["x"][:, 0, 0, 0].long(), batch["index"])
        assert torch.equal(batch["y"], batch["index"] * 3)
    assert torch.equal(indices(loader).sort().values, torch.arange(53))


@pytest.mark.parametrize(("count", "world"), [(53, 4), (3, 4), (64, 3)])
def test_evaluation_shards_cover_each_image_once_without_padding(count, world):
    loaders = [ResidentLoader(make(count), 8, rank=r, world_size=world) for r in range(world)]
    assert torch.equal(torch.cat([indices(one) for one in loaders if len(one)]).sort().values, torch.arange(count))
    assert all(len(list(one)) == len(one) for one in loaders)


@pytest.mark.parametrize("drop_last", [False, True])
def test_training_shards_have_equal_batches_and_no_duplicates(drop_last):
    loaders = [
        ResidentLoader(make(55), 4, shuffle=True, even=True, drop_last=drop_last, rank=r, world_size=4)
        for r in range(4)
    ]
    shapes = {tuple(len(b["y"]) for b in one) for one in loaders}
    assert shapes == {(4, 4, 4)} if drop_last else {(4, 4, 4, 1)}
    seen = torch.cat([indices(one) for one in loaders])
    assert len(seen.unique()) == len(seen) == (48 if drop_last else 52)


def test_drop_last_keeps_the_only_batch():
    assert [len(b["y"]) for b in ResidentLoader(make(5), 8, drop_last=True)] == [5]


def test_permutation_depends_on_seed_and_epoch_alone():
    now = {"epoch": 0}
    running = ResidentLoader(make(100), 10, shuffle=True, seed=4, epoch=lambda: now["epoch"])
    orders = []
    for epoch in range(4):
        now["epoch"] = epoch
        orders.append(indices(running))
    assert not torch.equal(orders[0], orders[1])
    resumed = ResidentLoader(make(100), 10, shuffle=True, seed=4, epoch=lambda: 3)
    assert torch.equal(indices(resumed), orders[3])
    assert not torch.equal(indices(ResidentLoader(make(100), 10, shuffle=True, seed=5, epoch=lambda: 3)), orders[3])


def test_state_resumes_inside_an_epoch_and_starts_anew_after_a_full_one():
    loader = ResidentLoader(make(50), 8, shuffle=True)
    whole = [b["index"] for b in loader]
    walk = iter(loader)
    for _ in range(3):
        next(walk)
    resumed = ResidentLoader(make(50), 8, shuffle=True)
    resumed.load_state_dict(loader.state_dict())
    rest = list(resumed)
    assert [b["batch"] for b in rest] == [3, 4, 5, 6]
    assert torch.equal(torch.cat([b["index"] for b in rest]), torch.cat(whole[3:]))
    assert len(list(resumed)) == 7
    resumed.load_state_dict(resumed.state_dict())
    assert len(list(resumed)) == 7


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
def test_adversarial_partners_are_aligned(kind):
    split = make(20)
    partners = kind((split.images.numpy() / 255).astype(np.float32))
    for batch in ResidentLoader(split, 6, shuffle=True, adversarial=partners):
        assert batch["x_adv"].dtype == torch.float32
        assert torch.allclose(batch["x_adv"] * 255, batch["x"].float())


def test_adversarial_partners_of_another_split_are_refused():
    with pytest.raises(UserError, match="craft it again"):
        ResidentLoader(make(20), 6, adversarial=torch.zeros(19, 1, 2, 2))


@pytest.mark.parametrize("value", [7.5, -0.1, float("nan")])
@pytest.mark.parametrize("kind", [torch.Tensor.clone, torch.Tensor.numpy])
def test_adversarial_partners_are_images(kind, value):
    partners = torch.zeros(20, 1, 2, 2)
    partners[7, 0, 1, 1] = value
    with pytest.raises(UserError, match="The adversarial set has"):
        ResidentLoader(make(20), 6, adversarial=kind(partners))


def test_batch_size_is_checked():
    with pytest.raises(UserError, match="batch_size is 0"):
        ResidentLoader(make(20), 0)


@pytest.mark.parametrize("count", [0, 1, 13, 40])
def test_hold_out_is_disjoint_complete_seeded_and_aligned(count):
    def run(seed):
        split = make(40)
        return hold_out(split.images, split.labels, count, seed)

    rest, apart = run(0)
    assert (len(rest), len(apart)) == (40 - count, count)
    for part in (rest, apart):
        assert torch.equal(part.images[:, 0, 0, 0].long() * 3, part.labels)
    assert torch.equal(torch.cat([rest.labels, apart.labels]).sort().values, torch.arange(40) * 3)
    assert torch.equal(run(0)[1].labels, apart.labels)
    if count == 13:
        assert not torch.equal(run(1)[1].labels, apart.labels)


def test_first_is_a_seeded_subset():
    split = make(30)
    few = split.first(7, 0)
    assert len(few) == 7
    assert torch.equal(few.labels, split.first(7, 0).labels)
    assert torch.equal(few.images[:, 0, 0, 0].long() * 3, few.labels)
    assert split.first(None, 0) is split
    assert split.first(99, 0) is split
