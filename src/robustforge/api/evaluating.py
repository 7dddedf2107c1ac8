"""``rf.evaluate``: a protocol on a model that one has, with a verdict."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from robustforge.api.attacking import fitting
from robustforge.api.data import as_data
from robustforge.api.report import Report
from robustforge.api.system import as_defense
from robustforge.api.untouched import left_as_found
from robustforge.attacks.core.attack import Attack
from robustforge.config import named
from robustforge.config.run_folder import environment
from robustforge.data.datamodule import ImageData
from robustforge.data.memory import MemoryData
from robustforge.defenses.base import Defense
from robustforge.evaluation.facts import facts
from robustforge.evaluation.protocol import Protocol
from robustforge.evaluation.runner import Evaluation
from robustforge.files import write_json
from robustforge.reporting.result import make_result
from robustforge.types import Threat, UserError

USUAL_RATE = 0.05  # of false positives, where calibration images are given and no rate


@dataclass(frozen=True)
class Place:
    """Where and how an evaluation runs.

    Attributes:
        device: torch device; None where the model is.
        batch_size: images at a time; None as many as fit.
        memory_gb: for a batch, GiB.
        progress: bars, on a terminal only.
        folder: of records, result and finished cells; None keeps nothing.
    """

    device: torch.device | str | None
    batch_size: int | None
    memory_gb: float
    progress: bool
    folder: Path | None


def evaluate(
    model: Callable[..., Any],
    data: Any,
    *,
    eps: float | str | None = None,
    norm: str = "linf",
    protocol: str | Protocol = "standard",
    attack: str | Attack = "pgd",
    calibration: Any = None,
    name: str = "model",
    output: int | str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    memory_gb: float = 4.0,
    progress: bool = True,
    folder: str | Path | None = None,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> Report:
    """Attacks a model by a protocol, and says whether the number that is left can be believed.

    The model is left as it was found, see :func:`robustforge.attack`.

    Args:
        model: (B, C, H, W) in [0, 1] -> logits (B, K); or a defense, see :func:`robustforge.system`.
        data: test images and labels: (x, y), a DataLoader, a Dataset, or a name of conf/dataset; see
            :func:`robustforge.attack` for what images and labels may be.
        eps: radius in pixel units of [0, 1], or a fraction as text; None for a protocol with budgets of its own, or
            the customary one of a named data set.
        norm: ``linf``, ``l2``, ``l1``, ``l0`` or ``l0_pixels``, see :class:`robustforge.types.Threat`.
        protocol: name of a file in conf/protocol, or a protocol. ``standard`` (AutoAttack, C&W and checks) is for a
            plain classifier, ``adaptive`` and ``full`` are for a defense.
        attack: one more attack that joins the protocol's: a name of conf/attack, or an attack object.
        calibration: held-out clean images and labels in the forms of ``data``, for systems with a risk: the threshold
            is fitted on them, at ``false_positive_rate`` (0.05 unless told otherwise).
        name: of the model's row.
        output: where in the model's answer the logits are: an index, a key or an attribute; None: it is a tensor.
        mean: normalization of a model that does not normalize for itself, pixel units, one value or one a channel.
        std: likewise.
        seed: of the attacks' draws.
        device: where to run, the model too; None: where the model is.
        batch_size: images at a time; None: 512, or as many as fit ``memory_gb``.
        memory_gb: largest memory in GiB that a batch may take when no batch size is given.
        progress: show bars, on a terminal only.
        folder: keeps records and result, and finished work: the same call again continues an interrupted one.
        overrides: as on the command line, such as ``protocol.suites.l2.attacks.ddn.steps=1000``.
        **settings: fields of the protocol that are to be otherwise: ``n_test=1000``, ``false_positive_rate=0.01``.

    Returns:
        The report; ``print`` it.

    Raises:
        UserError: data, answers, names or settings that make no sense; the message says what to do.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> x, y = torch.rand(8, 1, 4, 4), torch.arange(8) % 3
        >>> report = evaluate(network, (x, y), eps="8/255", protocol="smoke", progress=False)
        >>> report.records.num_rows == 8 * len(report.result["cells"])
        True
    """
    place = Place(device, batch_size, memory_gb, progress, None if folder is None else Path(folder))
    defense = as_defense(model, output=output, mean=mean, std=std)
    held = as_data(data, calibration)
    if eps is None and isinstance(data, str):
        eps = held.eps
    threat = None if eps is None else Threat(norm, eps)  # type: ignore[arg-type]
    chosen = _protocol(protocol, threat, attack, seed, overrides, settings, calibration is not None)
    if chosen.rates != (None,) and not len(held.calibration):
        raise UserError("A false_positive_rate needs held-out clean images: give calibration=(x, y).")
    chosen.cells(name, defense.surfaces(), defense.systems())  # refuses surfaces that it lacks, before anything runs
    return _run(name, defense, held, chosen, place)


def _protocol(
    protocol: str | Protocol,
    threat: Threat | None,
    attack: str | Attack,
    seed: int,
    overrides: Sequence[str],
    settings: dict[str, Any],
    calibrated: bool,
) -> Protocol:
    if isinstance(protocol, str):
        made = named.protocol(protocol, threat, attack, seed, overrides, **settings)
        if threat is None and any(not budget.eps for budget in made.budgets):
            raise UserError("Say how far an attack may go: give eps, such as eps=8/255 for pixels in [0, 1].")
    else:
        named.check_known("This protocol", settings, [field.name for field in fields(Protocol)])
        if overrides:
            raise UserError("overrides change a named protocol, and this is a protocol object: change it itself.")
        made = replace(protocol, **settings)
        made = made if threat is None else replace(made, budgets=(threat,))
    if calibrated and made.rates == (None,) and made.threshold is None:
        made = replace(made, false_positive_rate=USUAL_RATE)
    return made


def _run(name: str, defense: Defense, data: ImageData, protocol: Protocol, place: Place) -> Report:
    started = time.perf_counter()
    quiet = not (place.progress and sys.stdout.isatty())
    with _kept(place.folder) as folder, left_as_found(defense, place.device) as found:
        device = found or torch.device(place.device or "cpu")
        if isinstance(data, MemoryData):
            surface = defense.surfaces()["end_to_end"]
            fits = place.batch_size or fitting(surface, data.test.images, data.test.labels, device, place.memory_gb)
            data.eval_batch_size = fits
        evaluation = Evaluation(name, defense, data, protocol, folder, folder / "cells", {}, device, quiet)
        path, diagnostics = evaluation.run()
        meta = {"name": name, "seconds": time.perf_counter() - started, "versions": environment()["packages"]}
        result = make_result(path, facts(evaluation, diagnostics) | meta)
        write_json(folder / "result.json", result)
        return Report(result, pq.read_table(path))


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    """The folder, or one that is gone afterwards."""
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"The folder {folder} cannot be written ({error.strerror}): give another.") from error
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)
