"""Evaluations end to end: records, thresholds, cells that are kept, and a kill in the middle."""

import copy
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.data.datamodule import ImageData
from robustforge.defenses.figures import Picture, Scene
from robustforge.evaluation import runner
from robustforge.evaluation.budgets import save_budgets
from robustforge.evaluation.columns import batch_columns
from robustforge.evaluation.figures import save_figures
from robustforge.evaluation.protocol import Protocol, Suite
from robustforge.records.schema import SCHEMA
from robustforge.reporting.figures.arrays import draw_arrays
from robustforge.reporting.result import make_result
from robustforge.types import AttackResult, Batch, DefenseOutput, Threat, UserError


def frame(path):
    return {name: np.array(values) for name, values in pq.read_table(path).to_pydict().items()}


def test_records_of_a_detector(evaluate, defense, data, watched):
    evaluation = evaluate(false_positive_rate=0.1, seed=7)
    path, diagnostics = evaluation.run()
    assert pq.read_schema(path).equals(SCHEMA)
    records = frame(path)
    # clean and two budgets, two rows each, fifty images
    assert len(records["index"]) == 6 * 50
    keys = set(zip(*(records[k] for k in ("system", "attack", "surface", "eps", "index")), strict=True))
    assert len(keys) == 6 * 50
    assert set(zip(records["attack"], records["surface"], records["norm"], records["eps"], strict=True)) == {
        ("clean", "none", "none", 0.0), ("watched", "end_to_end", "linf", 0.05), ("watched", "end_to_end", "linf", 0.15),
    }  # fmt: skip
    assert (records["linf"] <= records["eps"] + 1e-6).all()
    assert set(records["seed"]) == {7}
    assert (records["label"] == data.test.labels.numpy()[records["index"]]).all()
    # the one success rule
    assert (records["success"] == (records["label"] != records["prediction"]) & records["accepted"]).all()
    own = records["system"] == "detector"
    calibration = data.calibration.images.float() / 255
    with torch.no_grad():
        risks = defense(calibration).risk
    (threshold,) = {call[4] for call in watched.calls if call[4] is not None}
    assert (risks > threshold).float().mean() == pytest.approx(0.1, abs=0.01)
    assert (records["accepted"][own] == (records["risk"][own] <= threshold)).all()
    assert np.isnan(records["risk"][~own]).all()
    assert records["accepted"][~own].all()
    wrong_but_rejected = own & (records["label"] != records["prediction"]) & ~records["accepted"]
    assert wrong_but_rejected.any()
    assert not records["success"][wrong_but_rejected].any()
    assert records["success"][own & (records["eps"] > 0.1)].any()
    mean = (data.test.images.float() / 255).mean().item()
    assert diagnostics == {"brightness": pytest.approx(mean, rel=1e-4)}


def test_without_a_rate_everything_is_accepted(evaluate, watched):
    records = frame(evaluate().run()[0])
    assert records["accepted"].all()
    assert (records["success"] == (records["label"] != records["prediction"])).all()
    assert {call[4] for call in watched.calls} == {None}
    assert not np.isnan(records["risk"][records["system"] == "detector"]).any()


def test_a_threshold_of_ones_own_is_taken_as_it_is(evaluate, watched):
    records = frame(evaluate(threshold=0.4).run()[0])
    mine = records["system"] == "detector"
    assert (records["accepted"][mine] == (records["risk"][mine] <= 0.4)).all()
    assert 0 < records["accepted"][mine].mean() < 1
    assert 0.4 in {call[4] for call in watched.calls}
    # and is part of what a kept cell depends on
    assert frame(evaluate("other", threshold=0.2).run()[0])["accepted"][mine].mean() < records["accepted"][mine].mean()


def test_twice_attacks_once(evaluate, watched):
    first = frame(evaluate().run()[0])
    calls = len(watched.calls)
    assert calls == 2 * 2 * 3  # rows, budgets, batches
    second = frame(evaluate().run()[0])
    assert len(watched.calls) == calls
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_kept_cells_answer_the_same_question_only(evaluate, watched):
    evaluate().run()
    for changed in (
        {"seed": 1}, {"n_test": 30}, {"false_positive_rate": 0.1}, {"suites": {"a": Suite({"x": watched("watched", 2)})}},
        {"budgets": (Threat("linf", 0.051), Threat("l2", 0.15))},
    ):  # fmt: skip
        watched.calls.clear()
        evaluate(**changed).run()
        rows = 1 if "false_positive_rate" in changed else 2  # the undefended row has no risk, so no threshold
        assert len(watched.calls) == rows * len(changed.get("budgets", (1, 2))) * (2 if "n_test" in changed else 3)
    watched.calls.clear()
    evaluate(budgets=(Threat("linf", 0.15),)).run()
    assert watched.calls == []


def test_other_weights_are_another_system(evaluate, watched, defense):
    evaluate().run()
    calls, other = len(watched.calls), copy.deepcopy(defense)
    evaluate(defense=copy.deepcopy(defense)).run()
    assert len(watched.calls) == calls
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    evaluate(defense=other).run()
    assert len(watched.calls) == 2 * calls


def test_overwrite_attacks_again(evaluate, watched):
    evaluate().run()
    calls = len(watched.calls)
    evaluate(overwrite=True).run()
    assert len(watched.calls) == 2 * calls


@pytest.mark.parametrize("word", ["warn", "remake"])
def test_cells_of_other_code_are_told_or_measured_again(evaluate, watched, monkeypatch, caplog, word):
    evaluate().run()
    calls = len(watched.calls)
    monkeypatch.setattr(runner, "code_state", lambda: {"source": "other"})
    again = evaluate()
    again.made_by_other_code = word
    again.run()
    assert len(watched.calls) == (calls if word == "warn" else 2 * calls)
    assert ("6 of 6 cells were measured by other code" in caplog.text) == (word == "warn")
    assert len(again.reused_from_other_code) == (6 if word == "warn" else 0)
    if word == "remake":  # what has been measured again is this code's
        evaluate().run()
        assert len(watched.calls) == 2 * calls


@pytest.mark.parametrize("dies_at", [0, 4, 10])
def test_killed_and_continued(evaluate, watched, dies_at):
    unbroken = frame(evaluate("unbroken").run()[0])
    watched.calls.clear()
    watched.dies_at = dies_at
    with pytest.raises(KeyboardInterrupt):
        evaluate().run()
    assert not (evaluate().folder / "records.parquet").exists()
    watched.dies_at = None
    watched.calls.clear()
    continued = frame(evaluate().run()[0])
    assert len(watched.calls) == 12 - dies_at  # every finished batch is kept
    for name in unbroken:
        np.testing.assert_array_equal(unbroken[name], continued[name])


def test_the_subset_is_fixed_and_grows(evaluate, watched):
    seen = {}
    for count in (10, 20, 50, 99):
        records = frame(evaluate(f"n{count}", n_test=count, budgets=(Threat("linf", 0.1),)).run()[0])
        for row in ("detector", "undefended"):
            for attack in ("clean", "watched"):
                index = records["index"][(records["system"] == row) & (records["attack"] == attack)]
                seen.setdefault(count, index)
                np.testing.assert_array_equal(index, seen[count])
    np.testing.assert_array_equal(seen[10], np.sort(np.random.default_rng(0).permutation(50)[:10]))
    assert set(seen[10]) < set(seen[20]) < set(seen[50]) == set(range(50)) == set(seen[99])


def test_a_blind_suite_knows_of_no_detector_and_is_judged_all_the_same(evaluate, defense, monkeypatch):
    body = replace(defense.surfaces()["end_to_end"], attacker_output=lambda x, _: DefenseOutput(defense.body(x)))
    monkeypatch.setattr(defense, "surfaces", lambda: {"end_to_end": body})
    suites = {"all": Suite({"a": PGD(steps=5, precision="float32")}, blind=True)}
    threat = (Threat("linf", 0.15),)
    records = frame(evaluate(suites=suites, budgets=threat, false_positive_rate=0.2).run()[0])
    own, alone = (
        {name: values[(records["system"] == row) & (records["attack"] == "pgd")] for name, values in records.items()}
        for row in ("detector", "undefended")
    )
    np.testing.assert_array_equal(own["prediction"], alone["prediction"])
    np.testing.assert_array_equal(own["linf"], alone["linf"])
    wrong = own["prediction"] != own["label"]
    np.testing.assert_array_equal(own["success"], wrong & own["accepted"])
    assert (wrong & ~own["accepted"]).any()
    seen = frame(evaluate("seen", suites={"all": replace(suites["all"], blind=False)}, budgets=threat,
                          false_positive_rate=0.2).run()[0])  # fmt: skip
    assert seen["success"].sum() >= records["success"].sum()


def test_false_alarms_may_be_counted_on_more_images(evaluate):
    records = frame(evaluate(n_test=10, n_clean=30, budgets=(Threat("linf", 0.1),)).run()[0])
    clean, attacked = (
        set(records["index"][(records["attack"] == name) & (records["system"] == "detector")])
        for name in ("clean", "watched")
    )
    assert (len(clean), len(attacked)) == (30, 10)
    assert attacked < clean


def test_a_sample_has_the_same_record_in_every_subset(evaluate):
    whole = frame(evaluate("whole", budgets=(Threat("linf", 0.1),)).run()[0])
    part = frame(evaluate("part", n_test=10, budgets=(Threat("linf", 0.1),)).run()[0])
    for i, index in enumerate(part["index"]):
        same = (
            (whole["index"] == index) & (whole["system"] == part["system"][i]) & (whole["attack"] == part["attack"][i])
        )
        (j,) = same.nonzero()[0]
        for name in ("success", "prediction", "backwards"):
            assert whole[name][j] == part[name][i]
        assert whole["linf"][j] == pytest.approx(part["linf"][i], abs=1e-6)


def test_two_rates_in_one_evaluation(evaluate, watched):
    path, _ = evaluate(false_positive_rates=[0.05, 0.3], budgets=(Threat("linf", 0.1),)).run()
    records = frame(path)
    own = records["system"] == "detector"
    assert set(records["false_positive_rate"][own]) == {0.05, 0.3}
    assert np.isnan(records["false_positive_rate"][~own]).all()  # no risk, no threshold: attacked once
    assert (~own).sum() == 2 * 50
    loose, strict = (own & (records["false_positive_rate"] == rate) for rate in (0.05, 0.3))
    (high,), (low,) = set(records["threshold"][loose]), set(records["threshold"][strict])
    assert high > low
    assert {call[4] for call in watched.calls} == {None, high, low}  # each attack knew its own threshold
    for part in (loose, strict):
        assert (records["accepted"][part] == (records["risk"][part] <= records["threshold"][part])).all()
    watched.calls.clear()
    alone = frame(evaluate("alone", cells="run", false_positive_rate=0.3, budgets=(Threat("linf", 0.1),)).run()[0])
    assert watched.calls == []  # the same cells
    kept = alone["system"] == "detector"
    np.testing.assert_array_equal(alone["success"][kept], records["success"][strict])


def test_checks_see_the_first_images_of_the_evaluated_ones(evaluate):
    suites = {"a": Suite({"x": PGD(steps=3), "y": FGSM()}, others=False)}
    path, _ = evaluate(suites=suites, budgets=(Threat("linf", 0.1),), checks=True, checks_n=15, n_test=40).run()
    records = frame(path)
    checked = records["check"] != ""
    assert set(records["check"]) == {"", "identity", "unbounded", "restarts", "steps"}
    few = np.sort(np.random.default_rng(0).permutation(50)[:15])
    for check in ("identity", "unbounded", "restarts", "steps"):
        np.testing.assert_array_equal(records["index"][records["check"] == check], few)
    assert set(records["attack"][checked]) == {"pgd"}
    assert (records["linf"][records["check"] == "identity"] == 0).all()
    result = make_result(path, {"defense": "detector"})
    assert all(cell["n"] == 40 for cell in result["cells"] + result["worst_case"])
    assert all(cell["seconds"] > 0 for cell in result["cells"] + result["checks"])


def test_the_trace_goes_into_the_records(evaluate):
    records = frame(evaluate(budgets=(Threat("linf", 0.1),)).run()[0])
    attacked = records["backwards"] > 0
    assert attacked.any()
    for name in ("zero_gradient", "loss_gain", "best_at"):
        assert np.isfinite(records[name][attacked]).all()
        assert np.isnan(records[name][~attacked]).all()
    assert (records["best_at"][attacked] <= 1).all()
    assert (records["loss_gain"][attacked] >= 0).all()


def test_records_of_before_the_trace_are_read(evaluate, tmp_path):
    path, _ = evaluate(budgets=(Threat("linf", 0.1),)).run()
    new = pq.read_table(path)
    old = new.drop_columns(["zero_gradient", "loss_gain", "best_at", "false_positive_rate", "threshold", "check"])
    pq.write_table(old.replace_schema_metadata(None), tmp_path / "old.parquet")
    before, after = make_result(tmp_path / "old.parquet", {}), make_result(path, {})
    assert [c["accuracy"] for c in before["cells"]] == [c["accuracy"] for c in after["cells"]]
    assert [c["seconds"] for c in before["cells"]] == [None] * 4
    assert before["worst_case"][0]["accuracy"] == after["worst_case"][0]["accuracy"]


def test_a_rate_needs_held_out_images(evaluate):
    bare = ImageData("digits", "digits", (1, 28, 28), 10, held_out=0, limit_test=20)
    bare.setup()
    with pytest.raises((UserError, ValueError), match=r"held_out"):
        evaluate(data=bare, false_positive_rate=0.1).run()


def test_columns_by_hand():
    x = torch.full((3, 1, 2, 2), 0.5)
    x_adv = x.clone()
    x_adv[0, 0, 0] += torch.tensor([0.3, -0.4])
    batch = Batch(x, torch.tensor([0, 1, 1]), torch.tensor([5, 3, 9]))
    result = AttackResult(x_adv, torch.tensor([True, False, False]), torch.tensor([4, 0, 2]), torch.tensor([3, 0, 1]))
    output = DefenseOutput(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.1, 0.7, 0.2]))
    columns = batch_columns(batch, result, output, 0.2)
    assert columns["index"].tolist() == [5, 3, 9]
    assert columns["prediction"].tolist() == [1, 0, 1]
    assert columns["accepted"].tolist() == [True, False, True]
    assert columns["linf"] == pytest.approx([0.4, 0, 0])
    assert columns["l2"] == pytest.approx([0.5, 0, 0])
    assert columns["l1"] == pytest.approx([0.7, 0, 0])
    assert columns["l0"].tolist() == columns["l0_pixels"].tolist() == [2, 0, 0]
    assert columns["forwards"].tolist() == [4, 0, 2]
    assert batch_columns(batch, result, output, None)["accepted"].all()
    assert np.isnan(batch_columns(batch, result, DefenseOutput(output.logits), 0.2)["risk"]).all()


def test_gallery_and_a_defenses_own_figures(defense, data, tmp_path, monkeypatch):
    own = {"mine": lambda scene: Picture("scatter", {"clean": scene.images(3)[0]}, {"measured": 2.0})}
    monkeypatch.setattr(defense, "figures", lambda: own)
    scene = Scene(data, FGSM(), Threat("linf", 0.1), torch.device("cpu"))
    assert save_figures(defense, scene, tmp_path) == {"measured": 2.0}
    with np.load(tmp_path / "mine.npz") as kept:
        assert (kept["kind"], kept["clean"].shape) == ("scatter", (3, 1, 28, 28))
    with np.load(tmp_path / "gallery.npz") as kept:
        clean = data.test.images[:10].float().numpy() / 255
        np.testing.assert_allclose(kept["clean"], clean)
        assert 0 < np.abs(kept["attacked"] - clean).max() <= 0.1 + 1e-6
        np.testing.assert_allclose(kept["rebuilt"], kept["attacked"] * 0.5, atol=1e-6)
        assert str(kept["title"]) == "fgsm on end_to_end, linf 0.1"
        with torch.no_grad():
            predicted = defense(torch.from_numpy(kept["attacked"])).logits.argmax(1).numpy()
        assert (kept["prediction"] == predicted).all()
        assert (kept["label"] == data.test.labels[:10].numpy()).all()


def test_one_image_by_budget(defense, data, tmp_path):
    protocol = Protocol("few", {"all": Suite({"fgsm": FGSM(early_stop=False)})}, [Threat("linf", 0.1)])
    path = tmp_path / "budgets.npz"
    save_budgets(defense, data, protocol, path, torch.device("cpu"))
    assert not path.exists()
    eps = [0.05, 0.1, 0.2, 0.4]
    many = replace(protocol, budgets=[Threat("linf", e) for e in eps])
    save_budgets(defense, data, many, path, torch.device("cpu"))
    with np.load(path) as kept:
        clean = data.test.images[0].float().numpy() / 255
        np.testing.assert_allclose(kept["clean"], clean)
        moved = np.abs(kept["attacked"] - clean).max((2, 3, 4))
        assert moved.shape == (1, 4)
        assert (moved <= np.array(eps) + 1e-6).all()
        assert (np.diff(moved[0]) > 0).all()
        assert (kept["label"], list(kept["attack"]), kept["prediction"].shape) == (
            data.test.labels[0],
            ["fgsm"],
            (1, 4),
        )
    (made,) = draw_arrays(tmp_path)
    assert made.stat().st_size > 1000
