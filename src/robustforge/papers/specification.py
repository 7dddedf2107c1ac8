"""What a paper's table is made of: its profiles, its runs, its cells and the figures beside it.

:mod:`robustforge.papers.table_file` reads them from ``conf/reproduce/<method>/<table>.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robustforge.papers.costs import COSTS
from robustforge.papers.parsing import did_you_mean
from robustforge.records.metrics import METRICS, Selection
from robustforge.records.summary import WORST

PROFILES = ("cpu", "gpu", "paper")
AVERAGED = "averaged"
FROM_RESULTS = ("accuracy", "error", "rejected", "auroc", "recovered", AVERAGED)
FIGURE_KINDS = ("outcomes", "acceptance")


@dataclass(frozen=True)
class Profile:
    """How the table is run; ``conf/reproduce/README.md`` says what each of ``PROFILES`` is for.

    Attributes:
        note: what differs from the paper; printed above the table.
        overrides: of ``train.py``, after those of the run.
        minutes: that the whole table is expected to take; None where nobody has measured it.
        runs: names of the runs that are made; empty: all. Cells of the others are shown as not run.
    """

    note: str
    overrides: tuple[str, ...]
    minutes: float | None = None
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One training and evaluation.

    Attributes:
        overrides: of ``train.py``, in all profiles.
        by_profile: further ones by profile, which come last.
        apart: whether the overrides of file and profile are not for this run (one of another defense).
    """

    overrides: tuple[str, ...]
    by_profile: Mapping[str, tuple[str, ...]]
    apart: bool = False


@dataclass(frozen=True)
class CellSpec:
    """One cell of the table: which of the paper's numbers, and which of ours beside it.

    Attributes:
        row: label of its row.
        column: label of its column.
        paper_table: id of the table of printed numbers; empty where no paper has any.
        paper_row: which of its rows (see :func:`robustforge.papers.printed.paper_row`); None where the paper has none.
        paper_key: which of the row's numbers; None where the paper prints none.
        paper_index: which of several budgets, where the paper lists them.
        paper_scale: factor that makes the paper's number percent.
        run: the run, or several that differ in their seed and are averaged; empty for a number that is only copied.
        system: which system of the run.
        attack: its name, ``clean``, or ``worst_case`` over all that was recorded at ``eps``.
        paper_surface: the surface that the paper's protocol attacks.
        norm: of the budget; None where only one was recorded.
        eps: the budget in units of [0, 1] pixels; None where only one was recorded.
        rate: false-positive rate of the threshold; None where only one was recorded.
        metric: ``accuracy``; ``error`` (wrong and accepted); ``rejected``; ``auroc`` (of risk, changed images against
            clean ones, percent); ``recovered`` (accuracy on what the system ``direct`` rejects, of a system that keeps
            that one's other answers); ``averaged`` (mean of clean and attacked accuracy, which some released code
            prints for the latter); one of :func:`robustforge.records.metrics.measure`, or of
            :func:`robustforge.papers.costs.cost`.
        pool: further attacks, counted together with ``attack``.
        direct: see ``recovered``.
        baseline: the run by whose distortions ours are divided.
        baseline_system: its system, if another one, which is always attacked end to end.
        adapted: surface of the attack that is adapted to the defense, or ``worst_case`` over all that was recorded.
        adapted_run: the run of the adapted number, if another one.
        adapted_attack: its attack, if another one.
        adapted_norm: the norm of its budget, if another one.
        adapted_eps: its budget, if another one.
        partial: of several runs, average those that are at hand, rather than none.
    """

    row: str
    column: str
    paper_table: str = ""
    paper_row: str | Mapping[str, Any] | None = None
    paper_key: str | None = None
    paper_index: int | None = None
    paper_scale: float = 1
    run: tuple[str, ...] = ()
    system: str = ""
    attack: str = ""
    paper_surface: str = "end_to_end"
    norm: str | None = None
    eps: float | None = None
    rate: float | None = None
    metric: str = "accuracy"
    pool: tuple[str, ...] = ()
    direct: str | None = None
    baseline: str | None = None
    baseline_system: str | None = None
    adapted: str = WORST
    adapted_run: str | None = None
    adapted_attack: str | None = None
    adapted_norm: str | None = None
    adapted_eps: float | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        known = (*FROM_RESULTS, *METRICS, *COSTS)
        if self.metric not in known:
            raise ValueError(f"There is no metric '{self.metric}'{did_you_mean(self.metric, known)}")
        if self.run and not (self.system and self.attack):
            raise ValueError(f"The cell '{self.row}', '{self.column}' has a run: give its system and its attack.")

    @property
    def needs(self) -> frozenset[str]:
        """Names of the runs that its numbers are computed from."""
        return frozenset(run for run in (*self.run, self.adapted_run, self.baseline) if run)

    @property
    def selection(self) -> Selection:
        """The recorded cells that the number is computed from."""
        attacks = (self.attack, *self.pool)
        return Selection(self.system, attacks, self.paper_surface, self.norm, self.eps, self.rate)


@dataclass(frozen=True)
class Panel:
    """One curve of an :class:`OutcomeFigure`: a system under an attack, over budgets (or at ``eps``)."""

    label: str
    run: str
    system: str
    attack: str
    surface: str
    norm: str = "linf"
    eps: float | None = None

    @property
    def selection(self) -> Selection:
        """The recorded cells that it shows."""
        return Selection(self.system, (self.attack,), self.surface, self.norm, self.eps)


@dataclass(frozen=True)
class OutcomeFigure:
    """A figure of accepted and rejected shares; ``kind`` is one of ``FIGURE_KINDS``, ``file`` a PNG's name."""

    file: str
    kind: str
    panels: tuple[Panel, ...]

    def __post_init__(self) -> None:
        if self.kind not in FIGURE_KINDS:
            raise ValueError(f"There is no figure '{self.kind}'{did_you_mean(self.kind, FIGURE_KINDS)}")


@dataclass(frozen=True)
class CurvePanel:
    """Metrics over epochs; ``scale`` is ``value``, ``percent`` of a share, or ``error``, the percentage it lacks."""

    label: str
    metrics: tuple[str, ...]
    scale: str = "value"


@dataclass(frozen=True)
class CurveFigure:
    """Training curves of one ``stage`` of several runs (label -> run); ``file`` is a PNG's name."""

    file: str
    title: str
    stage: str
    runs: Mapping[str, str]
    panels: tuple[CurvePanel, ...]


@dataclass(frozen=True)
class RowFigure:
    """Our numbers over the rows of the table: one line for each of ``columns``; ``file`` is a PNG's name.

    ``rows`` maps what stands below the axis to the rows' labels, in order.
    """

    file: str
    title: str
    axis: str
    columns: tuple[str, ...]
    rows: Mapping[str, str]


@dataclass(frozen=True)
class TableSpec:
    """A paper's table.

    Attributes:
        title: printed above it.
        profiles: by name.
        runs: by name, in the order in which they are made.
        cells: row by row.
        diagnostics: of the runs' ``result.json``, told below the title.
        figures: beside the table.
        curves: likewise.
        roc: whether to draw the ROC curves behind the ``auroc_flipped`` cells.
        pictures: of runs that are a figure of the paper: PNG's name -> ``<run>/<name of the run's figure>``.
        over_rows: figures of the table's own numbers.
        wants: what its runs need that neither the repository nor a download gives everywhere, in words.
    """

    title: str
    profiles: Mapping[str, Profile]
    runs: Mapping[str, Run]
    cells: tuple[CellSpec, ...]
    diagnostics: tuple[str, ...] = ()
    figures: tuple[OutcomeFigure, ...] = ()
    curves: tuple[CurveFigure, ...] = ()
    roc: bool = False
    pictures: Mapping[str, str] = field(default_factory=dict)
    over_rows: tuple[RowFigure, ...] = ()
    wants: str = ""

    def overrides(self, run: str, profile: str) -> list[str]:
        """train.py's overrides for one run: the run's own, the profile's, the run's for that profile."""
        made = self.runs[run]
        shared = () if made.apart else self.profiles[profile].overrides
        return [*made.overrides, *shared, *made.by_profile.get(profile, ())]

    def runs_of(self, profile: str) -> list[str]:
        """Names of the runs that a profile makes, in the order in which they are made."""
        wanted = self.profiles[profile].runs
        return [run for run in self.runs if not wanted or run in wanted]

    def __post_init__(self) -> None:
        shown = {run for cell in self.cells for run in cell.needs}
        shown |= {panel.run for figure in self.figures for panel in figure.panels}
        shown |= {run for figure in self.curves for run in figure.runs.values()}
        shown |= {run for profile in self.profiles.values() for run in profile.runs}
        shown |= {picture.rpartition("/")[0] for picture in self.pictures.values()}
        for run in sorted(shown - self.runs.keys()):
            raise ValueError(f"There is no run '{run}'{did_you_mean(run, self.runs)}")
