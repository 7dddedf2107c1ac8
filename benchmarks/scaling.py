"""What scale costs: image files, several processes, resume points and the store, and what the cost model predicts."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image

from benchmarks import BenchRow, _victims, say
from benchmarks._cost import costs_of
from robustforge.api.evaluating import evaluate
from robustforge.api.report import Report
from robustforge.data.datamodule import ImageData
from robustforge.data.folders import decode_all
from robustforge.defenses.none import PlainClassifier
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import FitStage, Training
from robustforge.nn.small_cnn import small_cnn
from robustforge.training.runner import StageRunner
from robustforge.training.store import ArtifactStore

ROOT = Path(__file__).resolve().parents[1]
FILES, SIDE = 1500, 224
IMAGES, PILOTS = 128, (8, 32)
FITS = ((6, 9), (60, 3))  # epochs, and pairs of measurements: fits of about one second and ten


def run() -> list[BenchRow]:
    """Every row; about five minutes on two cores."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        fits = [stage_overhead(place / str(epochs), epochs, pairs) for epochs, pairs in FITS]
        return [decoding(place), *fits, processes(place), *costs()]


def decoding(place: Path) -> BenchRow:
    """Image files read into the resident array, against nothing but decoding and resizing in a process a core."""
    say(f"decoding {FILES} JPEG files")
    folder = place / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    files = [folder / f"{number}.jpg" for number in range(FILES)]
    for file in files:  # as large as ImageNet's on average, with structure at every scale
        coarse = Image.fromarray(generator.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(file, quality=92)
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(_bare, files[: 8 * cores]))
        pairs = [
            (
                _seconds(partial(decode_all, files, (3, SIDE, SIDE), folder / str(number))),
                _seconds(lambda: list(pool.map(_bare, files, chunksize=16))),
            )
            for number in range(3)
        ]
    ours, theirs = (FILES / statistics.median(side) for side in zip(*pairs, strict=True))
    note = (
        f"{FILES} JPEG files of 500x375 to 3x{SIDE}x{SIDE}, {cores} cores, median of 3 pairs; written to disk by ours"
    )
    return BenchRow("image files / bare decoding", ours, theirs, "images/s", ours / theirs, 0.9, note=note)


def _bare(file: Path) -> int:
    image = Image.open(file).convert("RGB")
    scale = max(SIDE / image.height, SIDE / image.width)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return int(np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))[0, 0, 0])


def stage_overhead(place: Path, epochs: int, repetitions: int) -> BenchRow:
    """A stage with its key, resume points and product, against Lightning's Trainer alone; the two take turns."""
    say(f"a stage of {epochs} epochs, and its bare Trainer.fit")
    data = ImageData("digits", "digits", (1, 28, 28), 10, batch_size=64)
    data.setup()
    trainer = partial(
        pl.Trainer,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        inference_mode=False,
    )
    numbers = itertools.count()

    def defense() -> PlainClassifier:
        model = partial(small_cnn, (1, 28, 28), 10, (0.3,), (0.3,))
        return PlainClassifier(model, Training(epochs, partial(torch.optim.Adam, lr=1e-3), constant))

    def whole() -> None:
        store = ArtifactStore(place / f"store-{next(numbers)}")

        def made(_: str, wanted: int, extra: list[pl.Callback], clip: float | None) -> pl.Trainer:
            return trainer(max_epochs=wanted, callbacks=extra, gradient_clip_val=clip)

        StageRunner(data, store, made, {}, torch.device("cpu"), quiet=True).run(defense())

    def bare() -> None:
        module = defense()
        (stage,) = module.stages()
        assert isinstance(stage, FitStage)
        module.enter(stage)
        trainer(max_epochs=epochs).fit(module, datamodule=data)

    pairs = [(_seconds(whole), _seconds(bare)) for _ in range(repetitions + 1)][1:]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)  # what else the machine does meets both of a pair
    note = f"small_cnn on digits, {repetitions} pairs, median of their ratios; a resume point every 5 seconds"
    name = f"stage of {epochs} epochs with resume points and store / bare Trainer.fit"
    return BenchRow(name, ours, theirs, "s", ratio, 1.03, higher_is_better=False, note=note)


def processes(place: Path) -> BenchRow:
    """The same evaluation on two processes and on one, each process with one thread."""
    say("one process and two")
    places = (f"paths.output_dir={place / 'outputs'}", f"hydra.run.dir={place / 'run'}")
    _command("train.py", "defense=none", "evaluate=false", "trainer.enable_progress_bar=false", *places)
    one, two = (_evaluation(place / "run", count) for count in (1, 2))
    note = "PGD-100 with 4 restarts on all digits, small_cnn; seconds of the cells, without the start of Python"
    return BenchRow("evaluation, 2 processes / 1", 1 / two, 1 / one, "runs/s", one / two, 1.7, note=note)


def _evaluation(folder: Path, count: int) -> float:
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
    settings = ("attack.steps=100", "attack.restarts=4", "attack.early_stop=false", "progress=false", "overwrite=true")
    _command(*launcher, "scripts/evaluate.py", f"run={folder}", "protocol=smoke", "threat.eps=0.1", *settings)
    (result,) = folder.glob("evaluations/*/result.json")
    return float(sum(cell["seconds"] for cell in json.loads(result.read_text())["cells"]))


def costs() -> list[BenchRow]:
    """Seconds of an evaluation as the model of docs/scaling.md predicts them, against the clock.

    The model is fitted to two evaluations of few other images, as a person does who plans a long one.
    """
    rows = []
    for victim, protocol in ((_victims.small(), "standard"), (_victims.residual(), "smoke")):
        say(f"protocol {protocol} on {victim.name}")
        starts = itertools.accumulate((IMAGES, *PILOTS))
        pilots = [_evaluated(victim, protocol, start, count) for start, count in zip(starts, PILOTS, strict=False)]
        model = costs_of(victim.network, victim.x[:IMAGES])
        fitted = model.fitted([(report.records, _by_attack(report)) for report, _ in pilots])
        outside = pilots[-1][1] - sum(_by_attack(pilots[-1][0]).values())  # checks of the model, tables
        report, measured = _evaluated(victim, protocol, 0, IMAGES)
        predicted = outside + fitted.seconds(report.records)
        note = (
            f"{IMAGES} images, {len(report.result['cells'])} cells; fitted to {' and '.join(map(str, PILOTS))} others; "
            f"passes alone: {model.seconds(report.records):.1f} s"
        )
        name = f"protocol={protocol} on {victim.name}, clock / cost model"
        row = BenchRow(name, measured, predicted, "s", measured / predicted, 1.3, higher_is_better=False, note=note)
        rows.append(row)
    return rows


def _evaluated(victim: _victims.Victim, protocol: str, start: int, count: int) -> tuple[Report, float]:
    """A report of ``count`` images from ``start`` on, in one batch, and its seconds."""
    images, labels = victim.x[start : start + count], victim.y[start : start + count]
    assert len(images) == count
    started = time.perf_counter()
    eps = victim.threat.eps
    report = evaluate(victim.network, (images, labels), eps=eps, protocol=protocol, progress=False, batch_size=count)
    return report, time.perf_counter() - started


def _by_attack(report: Report) -> dict[str, float]:
    """Seconds of all cells of each attack."""
    found: dict[str, float] = {}
    for cell in report.result["cells"]:
        found[cell["attack"]] = found.get(cell["attack"], 0.0) + cell["seconds"]
    return found


def _command(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=sys.stderr,
    )


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
