"""Curves of several runs in one figure."""

from drawn import assert_drawn, write_metrics

from robustforge.papers import run_curves
from robustforge.papers.specification import CurveFigure, CurvePanel

FIGURE = CurveFigure(
    file="figure.png",
    title="Accuracies of three runs",
    stage="selector",
    runs={"first": "a", "second": "b", "not run": "c"},
    panels=(
        CurvePanel("loss", ("train/loss", "val/loss")),
        CurvePanel("held-out error (%)", ("val/accuracy",), "error"),
    ),
)


def test_runs_share_a_figure_and_missing_ones_are_left_out(tmp_path):
    for run, loss in (("a", 1.0), ("b", 0.5)):
        write_metrics(tmp_path / run / "metrics" / "selector" / "version_0", range(4), loss)
    (made,) = run_curves.draw([FIGURE], tmp_path)
    assert made == tmp_path / "figure.png"
    assert_drawn(made)


def test_scales(tmp_path, monkeypatch):
    write_metrics(tmp_path / "a" / "metrics" / "selector" / "version_0", range(2), 1.0)
    drawn = []
    monkeypatch.setattr(run_curves, "save", lambda figure, path: drawn.extend(figure.axes) or path)
    run_curves.draw([FIGURE], tmp_path)
    losses, error = drawn
    assert [list(line.get_ydata()) for line in losses.lines] == [[1, 1], [2, 2]]
    assert [line.get_label() for line in losses.lines] == ["first, train loss", "first, val loss"]
    assert [round(value, 6) for value in error.lines[0].get_ydata()] == [50, round(100 / 3, 6)]


def test_nothing_to_draw(tmp_path):
    assert run_curves.draw([FIGURE], tmp_path) == []
