"""``reproduce.py all``: every table that was never run or is stale, one after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from robustforge.cli.remembered import Digest
from robustforge.cli.table_states import State, states
from robustforge.pace import duration
from robustforge.types import UserError


def run_all(
    run: Callable[[str], int],
    profile: str,
    patterns: Sequence[str],
    results: Path | None,
    digest: Digest | None = None,
) -> int:
    """Runs the tables of one profile; what is finished and fresh is skipped, so that the same command goes on.

    Args:
        run: runs one table and answers how many of its runs failed.
        profile: of the tables; those that lack it are left out.
        patterns: of the tables' names; empty: all.
        results: folder of the result files; None: nothing was run.
        digest: of a run's overrides; None computes it.

    Returns:
        The exit code: 1 where a table failed. The others are run all the same.

    Raises:
        UserError: no table fits, or none has the profile.
    """
    found = list(states(profile, patterns, results, digest))
    if not found:
        raise UserError(f"No table that fits has the profile '{profile}': reproduce.py --list shows the profiles.")
    left = [state for state in found if state.word != "run"]
    print(_plan(found, left), flush=True)
    failed = []
    for number, state in enumerate(left, 1):
        started = time.monotonic()
        try:
            code = run(state.table)
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            code = 1
        ended = "failed" if code else "done"
        took = duration(time.monotonic() - started)
        print(f"table {number}/{len(left)} {state.table}: {ended} in {took}", flush=True)
        failed += [state.table] if code else []
    if failed:
        print(
            f"Error: {len(failed)} of {len(left)} tables failed: {', '.join(failed)}. The same command runs only these "
            "again.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _plan(found: Sequence[State], left: Sequence[State]) -> str:
    """What will be run and how long it takes, as far as that is known."""
    lines = [f"{len(found) - len(left)} of {len(found)} tables are fresh; {len(left)} to run:"]
    lines += [f"    {state.table}: {state.words}" for state in left]
    known = [state.minutes for state in left if state.minutes is not None]
    unknown = f", and {len(left) - len(known)} tables that nobody has measured" * (len(known) < len(left))
    lines.append(f"This takes about {duration(60 * sum(known))}{unknown}. Stages that are in the store take no time.")
    return "\n".join(lines)
