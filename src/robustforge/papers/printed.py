"""The numbers the papers print, shipped with the package as facts."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

_FOLDER = "papers/printed"


def list_paper_tables() -> list[str]:
    """The ids of all tables, sorted: ``memdef_table1`` is Memory Defense's first table."""
    entries = (resources.files("robustforge") / _FOLDER).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


@functools.cache  # a table of comparisons asks once a cell
def load_paper_table(table_id: str) -> Mapping[str, Any]:
    """One table: ``id``, ``paper``, ``caption``, ``dataset``, ``metric``, ``attack``, ``rows``, ``note``.

    It is read once and shared: not to be changed.

    Raises:
        ValueError: there is no table of that id.
    """
    known = list_paper_tables()
    if table_id not in known:
        raise ValueError(f"There is no paper table '{table_id}': choose one of {', '.join(known)}.")
    text = (resources.files("robustforge") / _FOLDER / f"{table_id}.yaml").read_text(encoding="utf-8")
    table: Mapping[str, Any] = yaml.safe_load(text)
    return table


def paper_row(table: Mapping[str, Any], which: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """Finds one row.

    Args:
        table: of ``load_paper_table``.
        which: the value of any of the row's text fields (``Memory-Defense``), or, where that is not unique, the
            fields that are (``{training: No Defense, model: DFL}``).

    Raises:
        ValueError: no row, or more than one, is described.
    """

    def fits(row: Mapping[str, Any]) -> bool:
        if isinstance(which, Mapping):
            return all(key in row and row[key] == value for key, value in which.items())
        return which in [value for value in row.values() if isinstance(value, str)]

    rows: list[Mapping[str, Any]] = [row for row in table["rows"] if fits(row)]
    if len(rows) != 1:
        raise ValueError(
            f"{len(rows)} rows of paper table '{table['id']}' fit {which!r}: name the fields of exactly one, "
            "for example {training: No Defense, model: DFL}."
        )
    return rows[0]


def paper_value(row: Mapping[str, Any], key: str, index: int | None = None) -> float | None:
    """One number of a row, or None where the paper prints none.

    Args:
        row: of ``paper_row``.
        key: column; nested columns are reached with dots (``fmnist.FGSM``).
        index: which of several budgets, when the column holds a list.

    Raises:
        ValueError: the row has no such column, or the column needs an index.
    """
    value: Any = row
    for part in [key] if key in row else key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ValueError(f"The paper's row has no column '{key}': it has {', '.join(map(str, row))}.")
        value = value[part]
    if isinstance(value, list):
        if index is None or not 0 <= index < len(value):
            raise ValueError(f"Column '{key}' holds {len(value)} numbers: give paper_index, 0 to {len(value) - 1}.")
        value = value[index]
    return None if value is None else float(value)
