"""Who goes on, what is kept of those who stop, and which run of an image counts, by hand."""

import pytest
import torch

from robustforge.attacks.core.restarts import first_then_others, in_rounds
from robustforge.attacks.core.session import AttackSession
from robustforge.attacks.core.surface import Surface
from robustforge.attacks.core.survivors import Iterates, State, Survivors, hopeless, standing
from robustforge.types import DefenseOutput, Threat

# two runs of each of three images, all first runs before all second ones
ROWS = torch.tensor([0, 1, 2, 0, 1, 2])


def pixels(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.fixture
def session():
    """Images that are fooled from 0.5 on."""

    def logits(x, _=None):
        return torch.stack([0.5 - x.flatten(1)[:, 0], x.flatten(1)[:, 0] - 0.5], 1)

    surface = Surface("s", lambda x, y: (logits(x),), lambda x, y: DefenseOutput(logits(x)), torch.nn.Identity())
    return AttackSession(surface, pixels(0.1, 0.2, 0.3), torch.zeros(3, dtype=torch.int64), Threat("linf", 1.0))


def test_a_state_is_selected_field_by_field():
    class Both(State):
        def __init__(self, one, none, pair):
            self.one, self.none, self.pair = one, none, pair

    kept = Both(torch.arange(3), None, (torch.arange(3), -torch.arange(3))).select(torch.tensor([2, 0]))
    assert kept.one.tolist() == [2, 0]
    assert kept.none is None
    assert [part.tolist() for part in kept.pair] == [[2, 0], [-2, 0]]


@pytest.mark.parametrize(
    ("stops", "left", "first"),
    [("all", [0, 0], 1), ("later", [0, 1, 0], 2), ("own", [0, 1, 0, 2], 2), ("never", [0, 1, 2, 0, 1, 2], 3)],
)
def test_who_stops(session, stops, left, first):
    # the second run of image 1 fools, and the first of image 2
    x = pixels(0.1, 0.2, 0.9, 0.1, 0.8, 0.3)
    runs = Survivors(session, ROWS, torch.zeros_like(x), stops=stops)
    state = runs.judge(Iterates(x))
    assert runs.rows.tolist() == left
    assert len(state.x) == len(left)
    assert session.traced == first  # runs of the leading rows
    if stops == "never":
        assert session.forwards.sum() == 0
        return
    assert runs.fooled.tolist() == [False, False, True, False, True, False]
    ends = runs.finish(state.x + 0.01).flatten()
    assert ends[[2, 4]].tolist() == pytest.approx([0.9, 0.8])
    assert ends[[0, 3]].tolist() == pytest.approx([0.11, 0.11])


def test_only_suspects_are_asked_and_the_dropped_keep_their_ends(session):
    x = pixels(0.9, 0.9, 0.3, 0.1, 0.2, 0.3)
    runs = Survivors(session, ROWS, torch.zeros_like(x))
    state = runs.judge(Iterates(x), torch.tensor([True, False, True, False, False, False]))
    assert session.forwards.tolist() == [1, 0, 1]
    assert runs.rows.tolist() == [1, 2, 1, 2]
    assert session.traced == 2
    state = runs.drop(state, torch.tensor([True, False, False, False]), 2 * state.x)
    state = runs.drop(state, torch.tensor([False, True, False]))
    assert runs.rows.tolist() == [2, 2]
    assert runs.finish(state.x).flatten().tolist() == pytest.approx([0.9, 1.8, 0.3, 0.1, 0.0, 0.3])


def test_steps_end_with_the_last_run(session):
    runs, seen = Survivors(session, ROWS, torch.zeros(6, 1, 1, 1)), []
    state = Iterates(torch.zeros(6, 1, 1, 1))
    for step in runs.steps(9):
        seen.append(step)
        state = runs.drop(state, torch.full((len(runs.rows),), step == 2))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("fallback", [0, -1])
@pytest.mark.parametrize("asks", [True, False])
def test_rounds_take_the_first_run_that_fooled(session, fallback, asks):
    calls = []

    def run(begin, rows, numbers):
        calls.append((rows.tolist(), list(numbers)))
        return begin, session.fools(begin, rows) if asks else None

    # image 0 falls in run 0, image 1 in runs 2 and 3, image 2 never
    table = {0: (0.9, 0.0, 0.01), 1: (0.0, 0.11, 0.11), 2: (0.0, 0.7, 0.12), 3: (0.0, 0.8, 0.13)}
    best = in_rounds(
        session, first_then_others(1, 4), lambda rows, number: pixels(*table[number])[rows], run, fallback=fallback
    )
    assert best.flatten().tolist() == pytest.approx([0.9, 0.7, 0.11 if fallback == 0 else 0.13])
    # three runs of an image at a time fill the batch of three
    assert calls == [([0, 1, 2], [0]), ([1, 1, 1], [1, 2, 3]), ([2, 2, 2], [1, 2, 3])]
    assert session.forwards.tolist() == [1, 4, 4]
    assert not session.tracing


def test_a_single_round_is_not_judged_twice(session):
    best = in_rounds(session, first_then_others(1, 1), lambda rows, _: session.x[rows] + 0.1, lambda x, *_: (x, None))
    torch.testing.assert_close(best, session.x + 0.1)
    assert session.forwards.sum() == 0


def test_what_stands_and_what_has_no_hope(session):
    session.x[1] = 0.6
    assert standing(session).tolist() == [0, 2]
    assert session.forwards.sum() == 0
    # two steps brought -3 to -2: five more bring +0.5, three more do not bring enough
    value, before = torch.tensor([-2.0]), torch.tensor([-3.0])
    assert not hopeless(value, before, 2, 5).any()
    assert hopeless(value, before, 2, 3).all()
