"""Reads what W&B wrote offline: records of protocol buffers in LevelDB's log format."""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7


@dataclass
class OfflineRun:
    """history: rows that were logged; files: what lies beside; artifacts: (name, type) -> names of files."""

    folder: Path
    run: object = None
    history: list = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)
    exit_code: int | None = None

    def column(self, name):
        return [row[name] for row in self.history if name in row]

    def table(self, name):
        """Columns and rows of the last table of that name."""
        found = json.loads((self.folder / "files" / self.column(f"{name}.path")[-1]).read_text())
        return found["columns"], found["data"]

    def chart(self, name):
        """(x, y) points of a chart by line."""
        columns, rows = self.table(f"{name}_table")
        points = {}
        for row in rows:
            one = dict(zip(columns, row, strict=True))
            points.setdefault(one["lineKey"], []).append((one["step"], one["lineVal"]))
        return points


def records(path):
    """The messages of one file."""
    data = path.read_bytes()
    place, message = HEADER, b""
    while place + HEADER <= len(data):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        if kind == 0:
            break
        part = data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        message = part if kind in (1, 2) else message + part
        if kind in (1, 4):
            yield Record.FromString(message)


def read_offline(folder, seconds=30):
    """Every run that was logged below a folder, in the order in which they began.

    W&B's own process may still be writing when finish() has returned: the record of the end is waited for.
    """
    paths, deadline = sorted(Path(folder).rglob("offline-run-*/run-*.wandb")), time.monotonic() + seconds
    found = [_read(path) for path in paths]
    while any(run.exit_code is None for run in found) and time.monotonic() < deadline:
        time.sleep(0.1)
        found = [_read(path) for path in paths]
    return found


def _read(path):
    found = OfflineRun(path.parent)
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            found.history.append(_values(record.history.item))
        elif kind == "summary":
            found.summary |= _values(record.summary.update)
        elif kind == "artifact":
            names = [entry.path for entry in record.artifact.manifest.contents]
            found.artifacts[record.artifact.name, record.artifact.type] = names
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _values(items):
    """Nested keys joined by dots; what is one text stays one."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
