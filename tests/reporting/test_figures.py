from typing import get_args

import numpy as np
import pytest
from drawn import assert_drawn, write_metrics
from recorded import EPS, held, join, make_cell

from robustforge.defenses.figures import Kind
from robustforge.reporting.figures.accuracy import accuracy_figure
from robustforge.reporting.figures.arrays import DRAWINGS, draw_arrays
from robustforge.reporting.figures.curves import curve_panel, curve_panels, read_metrics, training_curves
from robustforge.reporting.figures.gallery import change_range, changes
from robustforge.reporting.figures.security import security_curve, security_panels
from robustforge.reporting.figures.style import MOST_LINES, drawing, side_labels
from robustforge.reporting.result import make_result


def test_metrics_of_a_resumed_stage_are_merged(tmp_path):
    stage = tmp_path / "metrics" / "selector"
    write_metrics(stage / "version_2", range(3), 1.0)
    write_metrics(stage / "version_10", range(2, 5), 0.5)  # later, though it sorts before as text
    series = read_metrics(stage)
    assert series["selector/train/loss"] == {0: 1.0, 1: 1.0, 2: 0.5, 3: 0.5, 4: 0.5}
    assert series["selector/val/loss"][2] == 1.0
    assert "selector/train/loss_step" not in series
    (made,) = training_curves(tmp_path)
    assert made == tmp_path / "figures" / "training_selector.png"
    assert_drawn(made)


def test_no_metrics_no_curves(tmp_path):
    assert training_curves(tmp_path) == []


@pytest.mark.parametrize(("channels", "rebuilt"), [(1, True), (3, False)])
def test_gallery(tmp_path, channels, rebuilt):
    random = np.random.default_rng(0)
    clean = random.random((3, channels, 8, 8), dtype=np.float32)
    attacked = np.clip(clean + 0.03, 0, 1)
    arrays = {"clean": clean, "attacked": attacked} | ({"rebuilt": clean} if rebuilt else {})
    np.savez(tmp_path / "mine.npz", kind="gallery", label=[1, 2, 3], prediction=[1, 0, 3], title="PGD", **arrays)
    np.savez(tmp_path / "other.npz", label=[1])
    (made,) = draw_arrays(tmp_path)
    assert made == tmp_path / "figures" / "mine.png"
    assert_drawn(made)


def test_correlation(tmp_path):
    np.savez(tmp_path / "c.npz", kind="correlation", clean=np.eye(3), attacked=np.full((3, 3), -0.2), title="pgd")
    assert_drawn(draw_arrays(tmp_path)[0])


def test_pairs_and_densities(tmp_path):
    random = np.random.default_rng(0)
    images = {"upper": random.random((2, 5, 1, 8, 8)), "lower": random.random((2, 5, 1, 8, 8))}
    np.savez(tmp_path / "a.npz", kind="pairs", label=["2 to 6", "5 to 9"], title="pairs", **images)
    each = {}
    for row in range(2):
        each |= {f"points_{row}": random.random((30, 3)), f"attacked_{row}": random.random((5, 3))}
        each |= {f"distance_{row}": random.random(30), f"attacked_distance_{row}": random.random(5) + 1}
    named = {"names": ["victim", "defender"], "label": random.integers(0, 10, 30), "title": "fgsm"}
    np.savez(tmp_path / "b.npz", kind="density", **named, **each)
    for path in draw_arrays(tmp_path):
        assert_drawn(path, least=150)


def test_every_kind_of_picture_is_drawn(tmp_path):
    assert set(DRAWINGS) == set(get_args(Kind))
    assert draw_arrays(tmp_path) == []


def test_security_curve_needs_two_budgets(tmp_path, large, meta):
    result = make_result(large, meta)
    assert_drawn(security_curve(result, tmp_path / "one.png"))
    assert_drawn(security_curve([result, {**result, "name": "again"}], tmp_path / "two.png"))
    single = join(
        make_cell("d", "clean", "none", 0.0, held(5, 4)),
        make_cell("d", "pgd", "a", EPS, held(5, 2)),
    )
    assert security_curve(make_result(single, {}), tmp_path / "none.png") is None


def test_accuracy_figure(tmp_path, small, meta):
    assert_drawn(accuracy_figure(make_result(small, meta), tmp_path / "bars.png"))


def test_a_security_curve_has_at_most_six_lines(large, meta):
    result = make_result(large, meta)
    (lines,) = security_panels([result]).values()
    assert 1 < len(lines) <= MOST_LINES
    assert next(iter(lines)) == "memdef worst case"
    many = [{**result, "name": str(k)} for k in range(9)]
    assert len(security_panels(many)["linf"]) == MOST_LINES


def test_every_loss_has_its_own_panel(tmp_path):
    write_metrics(tmp_path / "version_0", range(5), 300.0)
    series = read_metrics(tmp_path) | {
        "selector/val/agreement": {0: 0.1, 1: 0.9},
        "selector/train/pull": {0: 3.0, 1: 1.0},
    }
    panels = curve_panels(series, "selector")
    assert set(panels) == {"accuracy (%)", "loss", "shares (%)", "pull"}
    assert set(panels["loss"]) == {"train", "val"}
    assert panels["shares (%)"]["val agreement"][1] == 90
    with drawing(4, 3) as figure:
        axes = figure.subplots()
        curve_panel(axes, "pull", {"train": {0: 3.0, 1: 1.0}}, 2.0)
        assert axes.get_yscale() == "log"


def test_labels_beside_lines_do_not_meet():
    with drawing(4, 3) as figure:
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 100))
        side_labels(
            axes, [(50.0, "a", "#000000"), (50.5, "b", "#000000"), (99.9, "c", "#000000"), (100.0, "d", "#000000")], 3
        )
        places = sorted(text.get_position()[1] for text in axes.texts)
    assert min(np.diff(places)) > 0.05
    assert places[-1] <= 1


def test_changes_are_signed_and_end_at_the_budget():
    difference = np.zeros((1, 3, 2, 2))
    difference[0, :, 0, 0] = (0.01, -0.03, 0.02)
    assert changes(difference)[0].tolist() == [[-0.03, 0.0], [0.0, 0.0]]
    arrays = {"clean": np.zeros((1, 1, 2, 2)), "attacked": np.full((1, 1, 2, 2), 0.02)}
    assert change_range(arrays) == pytest.approx(0.02)
    assert change_range({**arrays, "eps": np.array(0.1), "norm": np.array("linf")}) == pytest.approx(0.1)
    assert change_range({**arrays, "eps": np.array(2.0), "norm": np.array("l2")}) == pytest.approx(0.02)


def test_a_name_with_dollar_signs_is_a_name(tmp_path, small, meta):
    assert_drawn(accuracy_figure(make_result(small, {**meta, "name": r"$\frac{a}$ {b}"}), tmp_path / "bars.png"))
