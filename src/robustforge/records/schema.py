"""The one schema of ``records.parquet``: what each column means, and tables of it made, joined, written and read.

A record is one row for one (sample, attack, surface). The column names are part of the file format: files of earlier
versions stay readable, and the columns that they lack get the default below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robustforge.files import atomic_write
from robustforge.records.members import is_member, member_facts
from robustforge.types import DamagedError

NAN = float("nan")


class Column(NamedTuple):
    """One column: its name, its type, what it holds, and its value in older files that lack it (None: all have it)."""

    name: str
    type: pa.DataType
    meaning: str
    default: Any = None


COLUMNS = (
    Column("system", pa.string(), "row of the table: the defense, a part of it, or 'undefended'"),
    Column("attack", pa.string(), "name of the attack; 'clean' for images that nothing attacked"),
    Column("surface", pa.string(), "name of the surface that the attack differentiated or queried; 'none' if clean"),
    Column("norm", pa.string(), "norm of the budget: 'linf', 'l2', 'l1', 'l0', 'l0_pixels', or 'none' if clean"),
    Column("eps", pa.float64(), "budget in units of [0, 1] pixels, or a count; NaN or infinite: without a budget"),
    Column("seed", pa.int64(), "seed of the attack's random draws"),
    Column("index", pa.int64(), "position of the sample in its split"),
    Column("label", pa.int64(), "true class"),
    Column("prediction", pa.int64(), "class that the system answers, whether it accepts the input or not"),
    Column("success", pa.bool_(), "attack success: wrong label, within the budget, accepted"),
    Column("accepted", pa.bool_(), "whether the risk is at most the threshold; true for a system without a threshold"),
    Column("risk", pa.float64(), "risk of the input, higher = more suspicious; NaN for a system without one"),
    Column("linf", pa.float64(), "L-infinity norm of the perturbation, units of [0, 1] pixels"),
    Column("l2", pa.float64(), "L2 norm of the perturbation, units of [0, 1] pixels"),
    Column("forwards", pa.int64(), "forward passes that the attack spent on the sample"),
    Column("backwards", pa.int64(), "backward passes that the attack spent on the sample"),
    Column("zero_gradient", pa.float64(), "share of exact zeros in the first gradient; NaN without gradients", NAN),
    Column("loss_gain", pa.float64(), "best attacker's objective minus the first; NaN without gradients", NAN),
    Column("best_at", pa.float64(), "where the best objective was met: 0 first gradient, 1 last; NaN likewise", NAN),
    Column("false_positive_rate", pa.float64(), "rate at which the threshold was fitted; NaN if it was not", NAN),
    Column("threshold", pa.float64(), "risk above which the system rejects; NaN if it accepts everything", NAN),
    Column("check", pa.string(), "what the cell checks on a subset of the images; empty for a number of the table", ""),
    Column("evades", pa.bool_(), "whether the attack lowers the risk too", False),
    Column("skipped", pa.bool_(), "not attacked, as the worst case had lost the image before", False),
    Column("l1", pa.float64(), "L1 norm of the perturbation, units of [0, 1] pixels", NAN),
    Column("l0", pa.float64(), "number of values that were changed, each channel for itself", NAN),
    Column("l0_pixels", pa.float64(), "number of positions at which any channel was changed", NAN),
)
SCHEMA = pa.schema([(column.name, column.type) for column in COLUMNS])
# the columns that name a cell, the group of records behind one number
CELL_COLUMNS = ("system", "attack", "surface", "norm", "eps", "false_positive_rate", "check")
SECONDS = b"robustforge.seconds"  # metadata, so that two equal evaluations have equal columns
MEMBERS = b"robustforge.members"  # metadata: what each attack of an ensemble did, as JSON; of joined tables by cell
CODE = b"robustforge.code"  # metadata: which code measured a cell, as JSON; of joined tables all of them


class Budget(Protocol):
    """A norm and a radius, such as :class:`robustforge.types.Threat`."""

    @property
    def norm(self) -> str:
        """``linf``, ``l2``, ``l1``, ``l0`` or ``l0_pixels``."""

    @property
    def eps(self) -> float:
        """Radius in units of [0, 1] pixels, or a count."""


def cell_table(
    columns: Sequence[Mapping[str, Any]],
    system: str,
    attack: str,
    surface: str,
    threat: Budget | None,
    seed: int,
    *,
    rate: float | None = None,
    threshold: float | None = None,
    check: str = "",
    evades: bool = False,
    seconds: float = 0.0,
    code: Mapping[str, Any] | None = None,
) -> pa.Table:
    """One cell's records, sorted by sample index.

    Args:
        columns: one mapping a batch, from the names of the per-sample columns to numpy arrays (B,); those of an
            ensemble's members are summed up in the table's metadata.
        system: see ``COLUMNS``, like the others.
        attack: its name.
        surface: its name.
        threat: budget, or None for clean images.
        seed: of the attack's draws.
        rate: false-positive rate at which the threshold was fitted, or None.
        threshold: risk above which the system rejects, or None.
        check: what the cell checks, or empty.
        evades: whether the attack lowers the risk too.
        seconds: wall time spent on the cell; kept in the table's metadata.
        code: which code measured it (version, commit, hash of the source); kept there too.
    """
    names = [name for name in columns[0] if not is_member(name)]
    merged = {name: np.concatenate([part[name] for part in columns]) for name in names}
    order = np.argsort(merged["index"], kind="stable")
    constants = {
        "system": system,
        "attack": attack,
        "surface": surface,
        "norm": "none" if threat is None else threat.norm,
        "eps": 0.0 if threat is None else threat.eps,
        "seed": seed,
        "false_positive_rate": NAN if rate is None else rate,
        "threshold": NAN if threshold is None else threshold,
        "check": check,
        "evades": evades,
    }
    arrays = {name: values[order] for name, values in merged.items()}
    lacking = {one.name: one.default for one in COLUMNS if one.default is not None and one.name not in arrays}
    arrays |= {name: _constant(name, value, len(order)) for name, value in (lacking | constants).items()}
    metadata = {SECONDS: str(seconds), CODE: json.dumps(dict(code or {})), MEMBERS: json.dumps(member_facts(columns))}
    return pa.table(arrays, schema=SCHEMA.with_metadata(metadata))


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """All cells in one table, whose metadata tell the seconds and the members of each: [[*cell, told], ...] as JSON."""
    spent, members = [], []
    for table in tables:
        if len(table):
            values = [table[name][0].as_py() for name in CELL_COLUMNS]
            cell = [None if value != value else value for value in values]  # JSON has no NaN
            spent.append([*cell, float((table.schema.metadata or {}).get(SECONDS, b"0"))])
            if told := json.loads((table.schema.metadata or {}).get(MEMBERS, b"[]")):
                members.append([*cell, told])
    codes = {json.dumps(code, sort_keys=True): code for table in tables if (code := _code(table))}
    metadata = {SECONDS: json.dumps(spent), MEMBERS: json.dumps(members), CODE: json.dumps(list(codes.values()))}
    return pa.concat_tables(tables).replace_schema_metadata(metadata)


def measured_by(table: pa.Table) -> str | None:
    """Hash of the source of the package that measured a cell, or None for records that do not tell."""
    source = _code(table).get("source")
    return None if source is None else str(source)


def _code(table: pa.Table) -> dict[str, Any]:
    code: dict[str, Any] = json.loads((table.schema.metadata or {}).get(CODE, b"{}"))
    return code


def write_table(table: pa.Table, path: Path) -> None:
    """Writes parquet, whole or not at all."""
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)


def read_table(source: str | Path | pa.Table | Mapping[str, Any]) -> pa.Table:
    """Records with all columns of the schema, in its order and types.

    Args:
        source: path of a parquet file or of a run folder, a pyarrow table, or columns by name.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it cannot be read.
        ValueError: a column is missing that every version has written.
    """
    if isinstance(source, Mapping):
        source = pa.table(dict(source))
    elif not isinstance(source, pa.Table):
        path = Path(source)
        path = path / "records.parquet" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"There are no records at '{path}': evaluate the run first.")
        source = read_parquet(path)
    missing = [column for column in COLUMNS if column.name not in source.column_names]
    lacking = [column.name for column in missing if column.default is None]
    if lacking:
        raise ValueError(f"The records lack the columns {', '.join(lacking)}: evaluate the run again.")
    for column in missing:
        source = source.append_column(column.name, _constant(column.name, column.default, len(source)))
    schema = SCHEMA.with_metadata(source.schema.metadata)
    return source.select(SCHEMA.names).cast(schema).combine_chunks()


def read_parquet(path: Path) -> pa.Table:
    """A parquet file as it is. It is one file: no partitions are guessed from its name.

    Raises:
        DamagedError: it cannot be read.
    """
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"'{path}' cannot be read as parquet: {str(error).splitlines()[0]}") from error


def _constant(name: str, value: Any, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, SCHEMA.field(name).type), count)
