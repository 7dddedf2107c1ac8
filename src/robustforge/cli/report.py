"""``scripts/report.py`` / ``robustforge-report``: one HTML page of a run, or of many beside each other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustforge.types import UserError

HELP = """\
examples:
  report.py outputs/memdef_digits/default                    one run
  report.py outputs/sweeps/2026-11-26_12-00-00               a sweep: leaderboard, differences, what was varied
  report.py outputs/memdef_digits outputs/mrr_digits         everything at or below these folders
  report.py outputs/reproduce out=papers.html                the papers' tables beside ours, and their runs
  report.py outputs/pretrained_digits trust=mynets           a run that builds a network of your own module

The page needs no other file and no network. Nothing in the folders is run: a configuration that names what this
package does not build, and what trust= does not name, is refused."""


def make(paths: Sequence[str], out: str, trust: Sequence[str] = ()) -> Path:
    """Writes the page.

    Args:
        paths: run folders, or folders of them.
        out: the HTML file.
        trust: modules that the runs' configurations may name.

    Raises:
        UserError: no result there, one that cannot be read, or a configuration that is not to be trusted.
    """
    from robustforge.reporting.html.write import write_report  # matplotlib: --help does not wait for it

    try:
        return write_report(paths, out, lambda folder: checked_settings(folder, trust))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"{error.filename or out} cannot be used ({error.strerror}): give another out=<file>."
        ) from error


def checked_settings(folder: Path, trust: Sequence[str] = ()) -> Mapping[str, Any]:
    """The configuration of a run folder as plain values, nothing of it built or resolved; empty without one.

    Raises:
        UserError: it names a target that is neither this package's own nor of a trusted module, or an interpolation.
    """
    from omegaconf import OmegaConf

    from robustforge.config.identity import deciding
    from robustforge.config.trust import load_trusted

    if not (folder / "config.yaml").exists():
        return {}
    values: Mapping[str, Any] = deciding(OmegaConf.to_container(load_trusted(folder, list(trust)), resolve=False))
    return values


def main() -> None:
    """Console entry point."""
    parser = argparse.ArgumentParser(
        prog="report.py",
        usage="report.py RUN_OR_FOLDER ... [out=report.html] [trust=MODULE,...]",
        description="One HTML page of finished runs, to read and to share.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="RUN_OR_FOLDER", help="folder of a run, or of many")
    given = parser.parse_args().paths
    out = [item.removeprefix("out=") for item in given if item.startswith("out=")]
    trust = [name for item in given if item.startswith("trust=") for name in item.removeprefix("trust=").split(",")]
    paths = [item for item in given if not item.startswith(("out=", "trust="))]
    try:
        if not paths:
            raise UserError("Give the folder of a run, or of many: report.py outputs/memdef_digits/default.")
        print(f"wrote {make(paths, (out or ['report.html'])[-1], [name for name in trust if name])}")
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
