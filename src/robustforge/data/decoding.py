"""Many image files into one array on the disk, by one process a core: threads would wait for each other in Python."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from robustforge.data.image_files import decode
from robustforge.files import reserve
from robustforge.types import UserError

CHUNK = 32
"""Images that a process decodes before it writes them; all that it holds at a time."""

_Answer = tuple[list[int], UserError | OSError | None]


class _Chunks(Dataset[_Answer]):
    """Item k decodes the k-th ``CHUNK`` of files, and writes it where it belongs in ``target``.

    Its answer: numbers of the files with more than 8 bits a channel, and what went wrong, if anything.
    """

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...], target: Path, start: int) -> None:
        self.files, self.shape, self.target, self.start = files, shape, target, start

    def __len__(self) -> int:
        return -(-len(self.files) // CHUNK)

    def __getitem__(self, number: int) -> _Answer:
        first = number * CHUNK
        files = self.files[first : first + CHUNK]
        block, deep = np.empty((len(files), *self.shape), np.uint8), []
        try:
            for place, file in enumerate(files):
                block[place], more = decode(file, self.shape)
                deep += [first + place] if more else []
            with self.target.open("r+b") as out:  # not mapped: a full disk is then an error, and no signal
                out.seek(self.start + first * (block.nbytes // len(files)))
                out.write(block.data)
        except (UserError, OSError) as error:
            return [], error
        return deep, None


def decode_into(target: Path, files: Sequence[Path], shape: Sequence[int]) -> list[Path]:
    """Writes images to a ``.npy`` of (N, C, H, W) uint8.

    Args:
        target: file to write.
        files: images, in the order of the array.
        shape: (C, H, W).

    Returns:
        The files with more than 8 bits a channel, which were rounded.

    Raises:
        UserError: the first image, in this order, that cannot be read.
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(target, "w+", np.uint8, (len(files), *shape))
    start = array.offset
    del array
    reserve(target)
    deep: list[int] = []
    for more, error in _loader(_Chunks(files, tuple(shape), target, start)):
        if error is not None:
            raise error
        deep += more
    return [files[number] for number in deep]


def _loader(chunks: _Chunks) -> DataLoader[_Answer]:
    """One process a core; none beside this one where there is less to do than they take to start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = cores if len(chunks) > 2 * cores and cores > 1 else 0
    own = torch.Generator()  # else starting the workers would draw from the one that all share
    return DataLoader(
        chunks, batch_size=None, num_workers=workers, collate_fn=_same, worker_init_fn=_leave_signals, generator=own
    )


def _same(answer: Any) -> Any:
    return answer


def _leave_signals(worker: int) -> None:
    """Workers end with the process that started them, which is the one to say so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
