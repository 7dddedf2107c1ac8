"""The last lines of a run."""

from __future__ import annotations

from pathlib import Path


def say_where(folder: Path) -> None:
    """Tells where the page and everything else of a finished run lie, once the folder has its last name."""
    page = folder / "report.html"
    if page.is_file():
        print(f"To read and to share: {page}")
    print(f"Everything is in {folder}")
