"""The admission test of ``auto_fast`` on MNIST, where its files are (``ROBUSTFORGE_DATA=<folder>``, else ``data``)."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import BenchRow
from benchmarks.attacks import auto, auto_fast
from benchmarks.auto_fast import compare, victims
from robustforge.data.datamodule import ImageData

TRAIN, TEST = 5_000, 500  # images


def run() -> list[BenchRow]:
    """One row a victim; the bar is on the difference in points.

    Raises:
        UserError: MNIST is not there.
    """
    shape = {"shape": (1, 28, 28), "num_classes": 10}
    data = ImageData(name="mnist", kind="torchvision", download=False, limit_train=TRAIN, **shape)
    rows = []
    for system in victims(data=data):
        first = replace(system, x=system.x[:TEST], y=system.y[:TEST])
        rows.append(replace(compare(first, auto_fast(), auto()), name=f"MNIST, {system.name}"))
    return rows
