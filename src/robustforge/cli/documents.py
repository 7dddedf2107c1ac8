"""``scripts/documents.py``: writes the documents' tables and pictures from result files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from robustforge.cli.table_states import tables
from robustforge.config.locate import config_folder
from robustforge.files import write_text
from robustforge.papers import claims_figure
from robustforge.papers.claims_figure import Bars
from robustforge.papers.documents import BOARDS, fill, picture_file
from robustforge.papers.headlines import read_headlines
from robustforge.types import UserError

PICTURES = Path("docs") / "figures"


def documents(root: Path) -> list[Path]:
    """Every document of a checkout that may hold tables."""
    methods = (root / "src" / "robustforge" / "defenses").glob("*/README.md")
    pages = [path for path in (root / "docs").glob("*.md") if not path.name.startswith("_")]
    return sorted([*root.glob("*.md"), *pages, *methods])


def stale(root: Path, results: Path, write: bool = False) -> list[Path]:
    """Documents and pictures that differ from what the result files say.

    Args:
        root: of the checkout.
        results: folder of the result files.
        write: bring them up to date.

    Raises:
        UserError: a marker is not understood.
    """
    found = []
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        try:
            filled = fill(text, results, path.relative_to(root).as_posix()).text
        except ValueError as error:
            raise UserError(str(error)) from error
        if filled != text:
            found.append(path)
            if write:
                write_text(path, filled)
    for picture, bars in _pictures(root, results).items():
        if not claims_figure.is_drawn(picture, bars):
            found.append(picture)
            if write:
                claims_figure.draw(picture, bars)
    return found


def _pictures(root: Path, results: Path) -> dict[Path, Bars]:
    """Every picture and its numbers: of the first page, and of the methods and leaderboards that were run."""
    made: dict[str, Bars | None] = {"claims": claims_figure.first_page(results)}
    made |= {one.method: claims_figure.of_method(one.method, results) for one in read_headlines()}
    made |= {name: claims_figure.of_board(name, results) for name in tables([f"{BOARDS}*"])}
    return {root / PICTURES / picture_file(name): bars for name, bars in made.items() if bars is not None}


def main() -> None:
    """Console entry point."""
    parser = argparse.ArgumentParser(prog="documents.py", description="Writes the documents' tables from result files.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a document is stale")
    check = parser.parse_args().check
    root = config_folder().parent
    try:
        found = stale(root, root / "results", write=not check)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    for path in found:
        print(f"{'stale' if check else 'wrote'} {path.relative_to(root)}")
    sys.exit(1 if check and found else 0)


if __name__ == "__main__":
    main()
