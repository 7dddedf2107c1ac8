"""Cells that cannot differ from others are left out, and said; what can differ stays."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustforge.attacks.core.surface import bpda, end_to_end, transfer
from robustforge.attacks.detector_aware import DetectorAware
from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.attacks.square import Square
from robustforge.defenses.base import classify
from robustforge.evaluation.protocol import Protocol, Suite
from robustforge.evaluation.savings import same_network, without_repeats
from robustforge.records.table import read_records
from robustforge.types import DefenseOutput, Threat

SMALL = Threat("linf", 0.1)
AWARE, ORTHOGONAL = DetectorAware(steps=2), DetectorAware("orthogonal", schedule="orthogonal", steps=2)


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def surfaces():
    """A purifier's: the system itself, without the purifier's gradient, and from another network."""
    classifier, source = network(), network()
    own = end_to_end(lambda x: DefenseOutput(classifier(x)), classifier)
    return {"end_to_end": own, "bpda": bpda(lambda x: x, classifier, own), "transfer": transfer(source, own)}, source


def names(cells):
    return [(cell.attack.name, cell.surface.name) for cell in cells if cell.system == "d" and cell.attack]


def cells_of(suites, own, others, **changed):
    return Protocol("p", suites, [SMALL], **changed).cells("d", own, others)


def test_a_detectors_attack_on_what_never_rejects():
    own, _ = surfaces()
    suites = {"a": Suite({"pgd": PGD(steps=2)}), "d": Suite({"x": AWARE, "y": ORTHOGONAL}, ["end_to_end"])}
    cells = cells_of(suites, own, {})
    kept, said = without_repeats(cells, [])
    assert names(kept) == [("pgd", "end_to_end"), ("pgd", "bpda"), ("pgd", "transfer")]
    assert len(said) == 2
    assert said[0].startswith("d: detector_aware on end_to_end was left out: the system never rejects")
    assert len(names(without_repeats(cells, ["d"])[0])) == 5, "a system that may reject"
    assert without_repeats(cells, [], AWARE)[0][4].attack == AWARE, "the run's own attack was asked for"
    alone = cells_of({"d": Suite({"x": AWARE}, ["end_to_end"])}, own, {})
    assert names(without_repeats(alone, [])[0]) == [("detector_aware", "end_to_end")], "nothing would replace it"
    one_step = cells_of({"d": Suite({"x": AWARE, "y": FGSM()}, ["end_to_end"])}, own, {})
    assert len(names(without_repeats(one_step, [])[0])) == 2


@pytest.mark.parametrize("attack", [AWARE, Square(n_queries=5)])
def test_what_asks_the_system_alone_asks_it_once(attack):
    own, _ = surfaces()
    kept, said = without_repeats(cells_of({"a": Suite({"x": attack})}, own, {}), ["d"])
    assert names(kept) == [(attack.name, "end_to_end")]
    assert said == [
        f"d: {attack.name} on {name} was left out: it asks only the system, and so repeats end_to_end."
        for name in ("bpda", "transfer")
    ]
    own["bpda"] = replace(own["bpda"], attacker_output=lambda x, y: DefenseOutput(x.flatten(1)))
    assert len(names(without_repeats(cells_of({"a": Suite({"x": attack})}, own, {}), ["d"])[0])) == 2
    # what it repeats is the same bit for bit
    x = torch.rand(5, 1, 2, 2)
    own, _ = surfaces()
    y = own["end_to_end"].system(x, None).logits.argmax(1)
    first, second = (attack(own[name], x, y, SMALL) for name in ("end_to_end", "bpda"))
    assert torch.equal(first.x_adv, second.x_adv)
    assert torch.equal(first.forwards, second.forwards)


def test_a_transfer_from_the_network_itself():
    own, source = surfaces()
    suites, others = {"a": Suite({"x": PGD(steps=2)}, others=False)}, {"undefended": classify(source)}
    kept, said = without_repeats(cells_of(suites, own, others), [])
    assert ("pgd", "transfer") in names(kept)
    assert said == []
    classifier = own["end_to_end"].modules
    for same in (classifier, network()):
        same.load_state_dict(classifier.state_dict())
        kept, said = without_repeats(cells_of(suites, own, {"undefended": classify(same)}, transfer=True), [])
        assert ("pgd", "transfer") not in names(kept)
        assert "the undefended network is the attacked system itself" in said[0]
    assert not same_network(nn.Identity(), nn.Identity()), "networks without weights say nothing"
    assert not same_network(nn.Linear(2, 3), nn.Linear(3, 2))


def test_an_evaluation_leaves_out_and_says_so(evaluate):
    suites = {"a": Suite({"p": PGD(steps=3), "x": AWARE}, ["end_to_end"], others=False)}
    accepting = evaluate("accepting", suites=suites, budgets=(SMALL,))
    attacks = set(read_records(accepting.run()[0])["attack"])
    assert attacks == {"clean", "pgd"}
    assert len(accepting.left_out) == 1
    rejecting = evaluate("rejecting", suites=suites, budgets=(SMALL,), false_positive_rate=0.1)
    assert "detector_aware" in set(read_records(rejecting.run()[0])["attack"])
    fixed = evaluate("fixed", suites=suites, budgets=(SMALL,), threshold=0.5)
    assert "detector_aware" in set(read_records(fixed.run()[0])["attack"])
    assert rejecting.left_out == fixed.left_out == []
