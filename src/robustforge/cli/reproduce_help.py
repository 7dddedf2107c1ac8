"""The end of ``reproduce.py --help``: every table by method, and what is often asked for."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

EXAMPLES = (
    "examples:",
    "  reproduce.py memdef/table1 profile=cpu seed=1       what a CPU trains of it in minutes",
    "  reproduce.py memdef/table1 profile=paper            the paper's networks and numbers of epochs",
    "  reproduce.py all profile=cpu only=cae/*,mrr/*       every table of them that is not fresh",
    "  reproduce.py memdef/table5 --runs selector,full     some of its runs; the others as they are",
    "  reproduce.py mrr/table1 --show                      runs nothing; compares the results that exist",
    "  reproduce.py mrr/table1 logger=wandb                its runs and the table as one group in W&B",
    "",
    "--help-all lists every table with its state and cost.",
)


def epilog(names: Sequence[str]) -> str:
    """The text.

    Args:
        names: of the tables, ``<method>/<table>``.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        method, _, table = name.rpartition("/")
        groups.setdefault(method, []).append(table)
    lines = [line for method, found in groups.items() for line in _wrapped(method, found)]
    return "\n".join(["tables (<method>/<table>):", *lines, "", *EXAMPLES])


def _wrapped(method: str, found: Sequence[str]) -> list[str]:
    return wrap(" ".join(found), 98, initial_indent=f"  {method:<14}", subsequent_indent=" " * 16)
