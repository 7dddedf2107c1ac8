"""An evaluation in parts, on several machines: the same records as on one."""

import numpy as np
import pytest
from torch import nn

from robustforge.evaluation import attacking
from robustforge.evaluation.lost import NOBODY
from robustforge.evaluation.parts import Finished, Parts
from robustforge.evaluation.progress import CellProgress
from robustforge.evaluation.share import Share, dealt
from robustforge.records.table import read_records
from robustforge.types import UserError

SAME = ("index", "prediction", "success", "linf", "l2", "forwards", "backwards", "risk", "threshold")


def assert_same(one, other):
    one, other = read_records(one), read_records(other)
    assert one.cells.keys() == other.cells.keys()
    for key, part in one.cells.items():
        for name in SAME:
            assert np.array_equal(part[name], other.cells[key][name], equal_nan=part[name].dtype.kind == "f"), name


@pytest.mark.parametrize(("text", "share"), [("1/1", Share(1, 1)), (" 2/8 ", Share(2, 8)), ("8 / 8", Share(8, 8))])
def test_shares_are_read(text, share):
    assert Share.parse(text) == share


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "1/0", "-1/4", "a/b", "1/2/3", ""])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UserError, match="give a part and the number of parts"):
        Share.parse(text)


@pytest.mark.parametrize("unit", [1, 3, 16])
@pytest.mark.parametrize("hands", [1, 2, 7])
def test_every_position_is_dealt_to_exactly_one(unit, hands):
    rows = np.arange(100, 150)
    parts = [dealt(rows, unit, hand, hands) for hand in range(hands)]
    assert np.array_equal(np.sort(np.concatenate(parts)), rows)
    for part in parts:  # neighbors stay together
        starts = np.flatnonzero(np.isin(rows, part))[::unit]
        assert all(np.isin(rows[start : start + unit], part).all() for start in starts)


def test_parts_put_together_are_the_whole(evaluate, watched):
    settings = {"false_positive_rate": 0.1, "checks": False}
    whole, _ = evaluate("whole", **settings).run()
    alone = len(watched.calls)
    counts = [evaluate("parts", **settings).run_share(Share(number, 3)) for number in (3, 1)]
    assert evaluate("parts", **settings).missing()
    counts.append(evaluate("parts", **settings).run_share(Share(2, 3)))
    assert not evaluate("parts", **settings).missing()
    assert sum(counts) == sum(len(part["index"]) for part in read_records(whole).cells.values())
    watched.calls.clear()
    joined, _ = evaluate("parts", **settings).run()
    assert watched.calls == []  # nothing is attacked twice
    assert_same(whole, joined)
    assert alone


def test_what_a_part_left_is_attacked_when_they_are_put_together(evaluate, watched):
    whole, _ = evaluate("whole").run()
    evaluate("parts").run_share(Share(1, 2))
    assert set(evaluate("parts").missing().values()) == {25}
    watched.calls.clear()
    joined, _ = evaluate("parts").run()
    attacked = [index for _, _, indices, *_ in watched.calls for index in indices]
    assert len(attacked) == 2 * 2 * 25  # two budgets, two systems
    assert_same(whole, joined)


def test_a_part_that_was_killed_continues(evaluate, watched):
    watched.dies_at = 1
    with pytest.raises(KeyboardInterrupt):
        evaluate("parts").run_share(Share(1, 1))
    watched.dies_at = None
    done = sum(len(indices) for _, _, indices, *_ in watched.calls)
    evaluate("parts").run_share(Share(1, 1))
    assert sum(len(indices) for _, _, indices, *_ in watched.calls) == 2 * 2 * 50
    assert done


def test_batches_of_another_size_are_not_attacked_again(evaluate, watched, data, monkeypatch):
    evaluate("parts").run_share(Share(2, 5))
    watched.calls.clear()
    monkeypatch.setattr(data, "eval_batch_size", 7)
    evaluate("parts").run()
    assert sum(len(indices) for _, _, indices, *_ in watched.calls) == 2 * 2 * 40


def test_random_systems_draw_the_same_in_parts(evaluate, defense, monkeypatch):
    class Noisy(type(defense)):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x, 0.3, training=True))

    monkeypatch.setattr(defense, "__class__", Noisy)
    whole, _ = evaluate("whole").run()
    for number in (1, 2):
        evaluate("parts").run_share(Share(number, 2))
    joined, _ = evaluate("parts").run()
    assert_same(whole, joined)


def test_what_is_spared_needs_the_whole(evaluate):
    with pytest.raises(UserError, match="protocol.columns=full"):
        evaluate("parts", columns="worst").run_share(Share(1, 2))


def test_one_rank_reads_what_is_finished_and_tells_the_others(evaluate, tmp_path, monkeypatch):
    """Several would set the same damaged file aside."""
    evaluation = evaluate("parts")
    evaluation._begun()

    class Told(Parts):
        def finished(self):
            raise AssertionError("another rank reads")

    before = Finished([{"index": np.arange(50)}], np.arange(50), 1.0)
    for name, answer in (("rank", lambda: 1), ("world_size", lambda: 2), ("agree", lambda _: before)):
        monkeypatch.setattr(attacking.distributed, name, answer)
    rows, bar = evaluation.rows(), CellProgress(1, quiet=True)
    found = evaluation.attacking.attack(evaluation.measured[0], rows, NOBODY, Told(tmp_path), Share(), bar)
    assert (found.parts, found.index.tolist()) == ([], [])
