"""What belongs to a reproduced table besides its cells: figures over its runs, and diagnostics of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from robustforge.files import atomic_write
from robustforge.papers import run_curves
from robustforge.papers.comparison import compare
from robustforge.papers.outcome_curves import acceptance_curve, outcome_curves
from robustforge.papers.roc_figure import roc_figure
from robustforge.papers.row_figure import row_figure
from robustforge.papers.specification import TableSpec
from robustforge.records.table import Records
from robustforge.reporting.result import read_result

WIDTH = 1000  # pixels of a kept copy


def draw(spec: TableSpec, records: Mapping[str, Records], folder: Path) -> list[Path]:
    """Draws the figures that a specification asks for: ``figures``, ``curves``, ``roc``, ``pictures``, ``over_rows``.

    Args:
        spec: of the table.
        records: by run, of the runs that have any.
        folder: of the table; each run has a folder in it.

    Returns:
        The files that there was something to draw in.
    """
    kinds = {"outcomes": outcome_curves, "acceptance": acceptance_curve}
    made = [kinds[figure.kind](figure, records, folder / figure.file) for figure in spec.figures]
    made += run_curves.draw(spec.curves, folder)
    if spec.roc:
        made.append(roc_figure(spec, records, folder / "roc.png"))
    made += [_picture(folder, file, of) for file, of in spec.pictures.items()]
    cells = compare(spec, records) if spec.over_rows else []
    made += [row_figure(figure, cells, folder / figure.file) for figure in spec.over_rows]
    return [path for path in made if path is not None]


def _picture(folder: Path, file: str, of: str) -> Path | None:
    """A run's figure under the name of the paper's; None where the run has none."""
    run, _, name = of.rpartition("/")
    source, target = folder / run / "figures" / f"{name}.png", folder / file
    if not source.exists():
        return None
    with atomic_write(target) as part:
        part.write_bytes(source.read_bytes())
    return target


def keep(made: Iterable[Path], folder: Path) -> list[Path]:
    """Small copies of a table's figures, to lie beside its result file: at most ``WIDTH`` pixels wide, 64 colors.

    Args:
        made: the figures, PNG files.
        folder: for the copies.
    """
    kept = []
    for path in made:
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((WIDTH, 10 * WIDTH))
        target = folder / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as part:
            small.quantize(64, dither=Image.Dither.NONE).save(part, format="PNG", optimize=True)
        kept.append(target)
    return kept


def diagnostic_lines(spec: TableSpec, runs: Iterable[str], folder: Path) -> list[str]:
    """One line a finished run with the diagnostics of its ``result.json`` that the specification asks for."""
    lines = []
    for run in runs:
        found = read_result(folder / run)["diagnostics"]
        words = [f"{name.replace('_', ' ')} {found[name]:.3f}" for name in spec.diagnostics if name in found]
        if words:
            lines.append(f"{run}: {', '.join(words)}.")
    return lines
