"""What every Hydra entry point shares: errors as one sentence and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from robustforge.config.errors import explain
from robustforge.config.locate import config_folder
from robustforge.config.resolvers import register
from robustforge.types import UserError


def run(task: Callable[[], None], config_name: str) -> None:
    """Runs a ``hydra.main`` function; mistakes of the caller end in one sentence and exit code 2, bugs in a traceback.

    Args:
        task: the decorated function.
        config_name: its root config, for the near misses.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing a cut-down traceback
    register()
    try:
        task()
    except UserError as error:
        sys.exit(_say(str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(_say(explain(error, config_folder(), config_name)))
    except KeyboardInterrupt:
        print("Interrupted. The same command continues where this one stopped.", file=sys.stderr)
        sys.exit(130)


def _say(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return 2
