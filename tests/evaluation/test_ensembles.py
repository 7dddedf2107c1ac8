"""An ensemble's members in the records of an evaluation, and batches that are kept while it runs."""

import json

import torch

from robustforge.attacks.ensemble import Sampled
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.evaluation.protocol import Suite
from robustforge.records.table import read_records
from robustforge.reporting.result import make_result
from robustforge.types import Threat


def test_members_of_all_batches_reach_the_result(evaluate, defense, data):
    parts = {
        "fgsm": FGSM(precision="float32"),
        "pgd": PGD(steps=5, precision="float32"),
        "last": FGSM("last", precision="float32"),
    }
    attack = Sampled("ensemble", parts, sampled=["last"], sample=0.5)
    path, _ = evaluate(suites={"all": Suite({"a": attack}, others=False)}, budgets=(Threat("linf", 0.05),)).run()
    (cell,) = [cell for cell in make_result(read_records(path), {})["cells"] if cell["attack"] == "ensemble"]
    fgsm, pgd, last = cell["members"]
    x = data.test.pixels(torch.arange(50), torch.device("cpu"))
    wrong = int((defense(x).logits.argmax(1) != data.test.labels[:50]).sum())
    assert fgsm["attacked"] == fgsm["standing"] == 50 - wrong
    assert pgd["attacked"] == pgd["standing"] == fgsm["standing"] - fgsm["broken"]
    assert last["standing"] == pgd["standing"] - pgd["broken"]
    assert last["sampled"]
    assert last["attacked"] < last["standing"]
    assert fgsm["broken"] + pgd["broken"] + last["broken"] == 50 - wrong - round(cell["accuracy"] / 2)
    assert sum(one["backwards"] for one in cell["members"]) == round(50 * cell["backwards"])
    json.dumps(cell["members"])
