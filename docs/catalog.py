"""Lists of what conf/ offers, for the documentation: names, first sentences and options, from the files themselves."""

from __future__ import annotations

from pathlib import Path


def write_attacks(folder: Path, target: Path) -> None:
    """Writes a section an attack: what it is (the comment at the top of its file) and its options.

    Args:
        folder: conf/attack.
        target: the Markdown file.
    """
    sections = []
    for path in sorted(folder.glob("*.yaml")):
        comment, options = _read(path)
        block = f"\n\n```yaml\n{options}\n```" if options else ""
        sections.append(f"### `attack={path.stem}`\n\n{comment}{block}\n")
    _write(target, "\n".join(sections))


def write_protocols(folder: Path, target: Path) -> None:
    """Writes a table of the protocols and of the papers' own.

    Args:
        folder: conf/protocol.
        target: the Markdown file.
    """
    rows = ["| `protocol=` | what it runs |", "|---|---|"]
    for path in [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("paper/*.yaml"))]:
        comment, _ = _read(path)
        rows.append(
            f"| `{path.relative_to(folder).with_suffix('').as_posix()}` | {comment.replace('|', chr(92) + '|')} |"
        )
    _write(target, "\n".join(rows) + "\n")


def write_methods(folder: Path, target: Path) -> None:
    """Writes a page a method: its README, with links that hold on the site.

    Args:
        folder: of the methods.
        target: folder of the pages.
    """
    for path in sorted(folder.glob("*/README.md")):
        text = path.read_text(encoding="utf-8").replace("../../../../LEADERBOARD.md", "../leaderboard.md")
        text = text.replace("../../../../docs/", "../")
        text = text.replace("../../../../results/", "../../results/")
        _write(target / f"{path.parent.name}.md", text)


def _read(path: Path) -> tuple[str, str]:
    """(the comment at the top as one paragraph, the lines of options)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top = 0
    while top < len(lines) and lines[top].startswith("#"):
        top += 1
    comment = " ".join(line.lstrip("# ").strip() for line in lines[:top])
    options = [line for line in lines[top:] if line.strip() and not line.startswith(("_target_", "name:"))]
    return comment, "\n".join(options)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
