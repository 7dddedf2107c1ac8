"""The searches of modular robust redundancy's tables are long enough to reach their weights and to halve them after."""

import math

import pytest

from robustforge.cli.reproduce import load

REACHES = 1000.0  # weight of the label with which a confidence of 70 logits is reached on MNIST


def searches(compose, table, run, profile):
    cfg = compose(*load(table).overrides(run, profile))
    for suite in cfg.protocol.suites.values():
        for attack in suite.attacks.values():
            first, rounds = (
                attack.get("initial_c", attack.get("label_weight")),
                attack.get("search_steps", attack.get("rounds")),
            )
            if first is not None:
                yield attack, first, rounds


@pytest.mark.parametrize("profile", ["cpu", "paper"])
def test_carlini_wagner_of_table_1_reaches_its_confidences(compose, profile):
    found = [
        (attack, first * 10 ** (rounds - 1))
        for attack, first, rounds in searches(compose, "mrr/table1", "mnist", profile)
        if attack.name.startswith("cw_")
    ]
    assert {attack.confidence for attack, _ in found} == {0, 10, 40, 70}
    assert min(largest for _, largest in found) >= REACHES


@pytest.mark.parametrize("run", ["sp1_n1_paper", "sp1_n1"])
def test_the_white_box_attack_of_table_2_bisects(compose, run):
    for _, first, rounds in searches(compose, "mrr/table2", run, "cpu"):
        decades = math.ceil(math.log10(REACHES / first))
        assert rounds - 1 - decades >= 4, "rounds left to halve the weight in"
