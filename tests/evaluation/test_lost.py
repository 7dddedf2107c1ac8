"""protocol.columns=worst: no passes on images that are lost already, and the same worst case."""

import re

import numpy as np
import pytest
import torch

from robustforge.attacks.ensemble import WorstCase
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.evaluation.lost import Sparing
from robustforge.evaluation.protocol import Suite
from robustforge.evaluation.share import Share
from robustforge.records.summary import summarize, worst_case
from robustforge.records.table import read_records
from robustforge.types import Threat, UserError

SMALL = Threat("linf", 0.05)
EXACT = {"precision": "float32"}
ATTACKS = {
    "fgsm": FGSM(**EXACT),
    "pgd": PGD(steps=5, early_stop=False, **EXACT),
    "both": WorstCase("both", {"f": FGSM(**EXACT), "m": PGD("m", steps=8, loss="margin", **EXACT)}),
}


@pytest.fixture(scope="module")
def suites():
    return {"a": Suite({"f": ATTACKS["fgsm"]}, others=True), "b": Suite({"p": ATTACKS["pgd"], "w": ATTACKS["both"]})}


@pytest.mark.parametrize("rate", [None, 0.1])
def test_the_same_worst_case_for_fewer_passes(evaluate, suites, rate):
    common = {"suites": suites, "budgets": (SMALL, Threat("linf", 0.15)), "checks": True, "checks_n": 20}
    common["false_positive_rate"] = rate
    full = read_records(evaluate("full", **common).run()[0])
    worst = read_records(evaluate("worst", columns="worst", **common).run()[0])
    for system, own in (("detector", rate), ("undefended", None)):
        for threat in common["budgets"]:
            one, other = (worst_case(records, system, threat.norm, threat.eps, rate=own) for records in (full, worst))
            assert (one.accuracy, one.n) == (other.accuracy, other.n)
            assert other.backwards < one.backwards
            assert other.forwards < one.forwards
    cells = [cell for cell in summarize(worst) if cell.system == "detector" and cell.eps == 0.05]
    left = [cell.accuracy for cell in cells]
    assert left == sorted(left, reverse=True), "each column says what is left after all before it"
    assert left[-1] >= worst_case(worst, "detector", "linf", 0.05, rate=rate).accuracy
    assert not full["skipped"].any()
    skipped = worst["skipped"]
    assert skipped.any()
    assert not worst["success"][skipped].any()
    assert not worst["backwards"][skipped].any()
    assert not worst["linf"][skipped].any()
    beyond = np.isin(np.array(worst.table["check"]), ["identity", "unbounded"])
    assert beyond.any()
    assert not skipped[beyond].any(), "what is no number of the table spares nobody"


def test_the_runs_own_attack_has_its_column(evaluate, suites):
    common = {"suites": suites, "budgets": (SMALL,), "main": ATTACKS["pgd"]}
    found = {
        columns: read_records(evaluate(columns, columns=columns, **common).run()[0]) for columns in ("full", "main")
    }
    own = {name: [cell for cell in summarize(records) if cell.attack == "pgd"] for name, records in found.items()}
    assert [cell.key for cell in own["main"]] == [cell.key for cell in own["full"]]
    assert [cell.accuracy for cell in own["main"]] == [cell.accuracy for cell in own["full"]]
    assert [cell.attack for cell in summarize(found["main"])].index("fgsm") > len(own["main"])
    names = np.array(found["main"].table["attack"])
    assert found["main"]["skipped"][names != "pgd"].any()
    assert not found["main"]["skipped"][names == "pgd"].any()
    full, main = (worst_case(found[name], "detector", "linf", 0.05) for name in ("full", "main"))
    assert full.accuracy == main.accuracy
    assert main.backwards < full.backwards
    evaluation = evaluate("share", columns="main", **common)
    with pytest.raises(UserError, match=r"protocol.columns=full"):
        evaluation.run_share(Share(0, 2))


def test_a_log_says_of_each_cell_what_is_left_after_it(evaluate, suites, caplog):
    """And not how many of the few images hold that it still had to look at."""
    caplog.set_level("INFO", "robustforge")
    evaluation = evaluate("told", columns="worst", suites=suites, budgets=(SMALL,))
    evaluation.quiet = False
    records = read_records(evaluation.run()[0])
    told = [float(found[1]) for line in caplog.messages if (found := re.search(r"([\d.]+) % still correct", line))]
    attacked = [cell for cell in summarize(records) if cell.attack != "clean"]
    assert records["skipped"].any()
    assert told[-len(attacked) :] == pytest.approx([cell.accuracy for cell in attacked], abs=0.05)


def test_measured_cells_are_found_again_by_what_was_lost(evaluate, suites):
    first = evaluate("again", columns="worst", suites=suites, budgets=(SMALL,))
    first_records = read_records(first.run()[0])
    count = len(list(first.cells.glob("*.parquet")))
    second = read_records(evaluate("again", columns="worst", suites=suites, budgets=(SMALL,)).run()[0])
    for name in ("index", "success", "skipped", "backwards"):
        assert np.array_equal(second[name], first_records[name])
    assert len(list(first.cells.glob("*.parquet"))) == count
    evaluate("again", suites=suites, budgets=(SMALL,)).run()
    assert len(list(first.cells.glob("*.parquet"))) > count, "full columns are other cells"


def test_an_attack_that_spares(defense, data):
    x, y = data.test.pixels(torch.arange(12), torch.device("cpu")), data.test.labels[:12]
    surface, index = defense.surfaces()["end_to_end"], torch.arange(100, 112)
    how = {"index": index, "seed": 1, "threshold": None}
    whole = ATTACKS["both"](surface, x, y, SMALL, **how)
    lost = np.array([103, 104, 999])
    part = Sparing(ATTACKS["both"], lost)(surface, x, y, SMALL, **how)
    gone = torch.isin(index, torch.tensor(lost))
    assert torch.equal(part.x_adv[gone], x[gone])
    for name in ("success", "forwards", "backwards"):
        assert not getattr(part, name)[gone].any()
        assert torch.equal(getattr(part, name)[~gone], getattr(whole, name)[~gone])
    assert part.trace.loss_gain[gone].isnan().all()
    assert torch.equal(part.x_adv[~gone], whole.x_adv[~gone])
    assert [member.name for member in part.members] == ["fgsm", "m"]
    assert not part.members[0].attacked[gone].any()
    everyone = Sparing(ATTACKS["both"], index.numpy())(surface, x, y, SMALL, **how)
    assert torch.equal(everyone.x_adv, x)


def test_other_words_are_refused(evaluate):
    with pytest.raises(UserError, match="give full, main or worst"):
        evaluate(columns="best")
