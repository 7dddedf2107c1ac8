"""Reads ``conf/reproduce/<method>/<table>.yaml``: the runs that a paper's table needs, its rows and its columns.

Loops and groups (:mod:`robustforge.papers.loops`) are expanded first. Then every row and every column make a cell by
one rule: **what both say, the column decides**. Rows and columns have the same keys, those of :class:`CellSpec`: most
tables have the run in the row and the attack in the column, and some the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from robustforge.papers.loops import expand
from robustforge.papers.parsing import check_keys, did_you_mean, parse
from robustforge.papers.specification import (
    PROFILES,
    CellSpec,
    CurveFigure,
    CurvePanel,
    OutcomeFigure,
    Panel,
    Profile,
    RowFigure,
    Run,
    TableSpec,
)

Figure = TypeVar("Figure")


@dataclass(frozen=True)
class _File:
    """The keys of a file.

    Attributes:
        title: see :class:`TableSpec`, like the keys below that it has too.
        paper_table: id of the printed numbers, for rows that do not name their own.
        profiles: by name.
        runs: by name.
        rows: see :class:`CellSpec`; each has a ``label`` besides.
        columns: likewise.
        note: what belongs to the note of every profile, at its end.
        overrides: what belongs to the overrides of every profile, at their beginning.
        diagnostics: see :class:`TableSpec`.
        figures: likewise.
        curves: likewise.
        roc: likewise.
        pictures: likewise.
        over_rows: likewise.
    """

    title: str
    profiles: Mapping[str, Any]
    runs: Mapping[str, Any]
    rows: tuple[Any, ...]
    columns: tuple[Any, ...]
    paper_table: str = ""
    note: str = ""
    overrides: tuple[str, ...] = ()
    diagnostics: tuple[str, ...] = ()
    figures: tuple[Any, ...] = ()
    curves: tuple[Any, ...] = ()
    roc: bool = False
    pictures: Mapping[str, str] = field(default_factory=dict)
    over_rows: tuple[Any, ...] = ()
    wants: str = ""


def parse_table(given: Mapping[str, Any], where: str) -> TableSpec:
    """The specification of one table.

    Args:
        given: the content of its file.
        where: the file's name, for messages.

    Raises:
        ValueError: an unknown key, metric, figure or run; the message names the file, and what was probably meant.
    """
    try:
        return _parse_table(parse(_File, expand(given), "The file"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _parse_table(file: _File) -> TableSpec:
    profiles = {name: _profile(file, name, given) for name, given in file.profiles.items()}
    runs = {name: _run(name, given, profiles) for name, given in file.runs.items()}
    for name, made in runs.items():
        _check_own(name, made, profiles)
    return TableSpec(
        title=file.title,
        profiles=profiles,
        runs=runs,
        cells=tuple(_cell(file, row, column) for row in file.rows for column in file.columns),
        diagnostics=file.diagnostics,
        figures=tuple(_figure(OutcomeFigure, Panel, given) for given in file.figures),
        curves=tuple(_figure(CurveFigure, CurvePanel, given) for given in file.curves),
        roc=file.roc,
        pictures=file.pictures,
        over_rows=tuple(parse(RowFigure, given, "A figure") for given in file.over_rows),
        wants=file.wants,
    )


def _profile(file: _File, name: str, given: Any) -> Profile:
    own = parse(Profile, given, f"Profile '{name}'")
    if name not in PROFILES:
        raise ValueError(f"There is no profile '{name}'{did_you_mean(name, PROFILES)}")
    return replace(own, note=f"{own.note.strip()} {file.note}".strip(), overrides=(*file.overrides, *own.overrides))


def _run(name: str, given: Mapping[str, Any], profiles: Mapping[str, Profile]) -> Run:
    check_keys(given, ("overrides", "apart", *profiles), f"Run '{name}'")
    by_profile = {key: tuple(given[key]) for key in profiles if key in given}
    return Run(tuple(given.get("overrides", ())), by_profile, bool(given.get("apart", False)))


def _check_own(name: str, run: Run, profiles: Mapping[str, Profile]) -> None:
    """Refuses a run's own setting that a profile, which comes after it, would replace unseen."""
    own = _settings(run.overrides)
    for profile, made in profiles.items():
        if run.apart or (made.runs and name not in made.runs):
            continue
        shared, last = _settings(made.overrides), _settings(run.by_profile.get(profile, ()))
        for key in own:
            if key in shared and key not in last and shared[key] != own[key]:
                raise ValueError(
                    f"Run '{name}' sets {key}={own[key]}, and profile '{profile}' replaces it with {shared[key]}: "
                    f"write it under '{profile}' of the run, which comes last."
                )


def _settings(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value of overrides; of equal keys the last one, as Hydra has it."""
    return {key.lstrip("+"): value for key, _, value in (one.partition("=") for one in overrides)}


def _figure(kind: type[Figure], panel: type[Any], given: Mapping[str, Any]) -> Figure:
    panels = [parse(panel, one, "A panel") for one in given["panels"]]
    return parse(kind, {**given, "panels": panels}, "A figure")


def _cell(file: _File, row: Mapping[str, Any], column: Mapping[str, Any]) -> CellSpec:
    for part in (row, column):
        if not isinstance(part, Mapping) or "label" not in part:
            raise ValueError(f"A row or column is {part!r}: give a mapping with a label.")
    labels = {"row": str(row["label"]), "column": str(column["label"])}
    merged = {"paper_table": file.paper_table, **row, **column, **labels}
    del merged["label"]
    if isinstance(merged.get("run"), str):
        merged["run"] = [merged["run"]]
    return parse(CellSpec, merged, f"The cell '{labels['row']}', '{labels['column']}'")
