"""What every Hydra entry point shares: errors as one sentence and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from robustforge.cli.help import answer_help
from robustforge.config import slurm
from robustforge.config.disk import refused
from robustforge.config.errors import explain, say
from robustforge.config.locate import config_folder
from robustforge.config.logger_settings import check_agent, check_overrides
from robustforge.config.presets import Preset, find_preset, for_run
from robustforge.config.processes import is_child
from robustforge.config.resolvers import register
from robustforge.config.submitted import ending_with_us
from robustforge.config.sweeps import completed
from robustforge.interruption import Stopped, listening
from robustforge.types import DivergedError, UserError

# Lightning's remarks about what is meant here: frozen networks in eval mode, small data sets, resident loaders
_EXPECTED = (
    r"Found \d+ module\(s\) in eval mode",
    r"The number of training batches",
    r".*does not have many workers",
    r".*isinstance\(treespec, LeafSpec\)",
    r".*Experiment logs directory",
    r".*Checkpoint directory",
)
_QUESTIONS = ("--help", "-h", "--hydra-help", "--version", "--info", "-i", "--shell-completion", "-sc")


@contextmanager
def job() -> Iterator[None]:
    """Around the body of a job: its mistakes end here, before Hydra adds its own lines to them."""
    for message in _EXPECTED:
        warnings.filterwarnings("ignore", message=message)
    try:
        yield
    except UserError as error:
        sys.exit(say(str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(say(explain(error, config_folder(), "train")))
    except DivergedError as error:
        say(str(error))
        sys.exit(1)
    except Exception as error:
        _say_if_refused(error)
        raise


def run(task: Callable[[], None], config_name: str) -> None:
    """Runs a ``hydra.main`` function; mistakes of the caller end in one sentence and exit code 2, bugs in a traceback.

    Args:
        task: the decorated function.
        config_name: its root config, for the near misses.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing a cut-down traceback
    sys.argv[1:] = answer_help(config_name, sys.argv[1:])
    register()
    try:
        _complete(config_name)
        with listening(slurm.notice()):
            slurm.become_rank()
            with ending_with_us(sys.argv):
                task()
    except UserError as error:
        sys.exit(say(str(error)))
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(say(explain(error, config_folder(), config_name)))
    except ValueError as error:
        if not str(error).startswith("Config group override"):  # Hydra's, of group=null
            raise
        sys.exit(say(explain(error, config_folder(), config_name)))
    except OSError as error:  # Hydra makes the run folder before our code
        _say_if_refused(error)
        raise
    except KeyboardInterrupt:
        sys.exit(stopped(Stopped(signal.SIGINT)))
    except Stopped as stop:
        sys.exit(stopped(stop))


def stopped(stop: Stopped) -> int:
    """Says how to go on after a signal, once for all processes of a command, and returns the exit code."""
    if stop.signum in slurm.notice() and os.environ.get("RANK", "0") == "0":
        problem = slurm.requeue()
        again = f"SLURM did not requeue the job ({problem}), and the" if problem else "SLURM starts the job again: the"
    else:
        again = "The"
    if not is_child() and os.environ.get("RANK", "0") == "0":
        print(f"Stopped by {stop}. {again} same command continues where this one stopped.", file=sys.stderr)
    return stop.code


def _say_if_refused(error: Exception) -> None:
    """Ends the command with one sentence where the file system is what failed."""
    message = refused(error)
    if message is not None:
        sys.exit(say(message))


def _complete(config_name: str) -> None:
    """Checks the command line and writes out what it leaves to the preset, or to the run that it names."""
    check_overrides(sys.argv[1:])
    check_agent(sys.argv[1:], os.environ)
    if config_name == "train":
        sys.argv[1:] = completed(sys.argv[1:])
        preset = find_preset(sys.argv[1:], config_folder())
        if preset is not None:
            _show(preset, sys.argv[1:])
            sys.argv[1:] = preset.put_into(sys.argv[1:])
    elif config_name == "evaluate":
        sys.argv[1:] = for_run(sys.argv[1:], config_folder())


def _show(preset: Preset, arguments: list[str]) -> None:
    """Says what the preset sets: on stderr beside a printed composition, which is pure YAML; else with the run's lines.

    Not on every rank of a job, and not where Hydra only answers a question (--help, --version, completion).
    """
    if os.environ.get("RANK", "0") != "0" or any(argument.startswith(_QUESTIONS) for argument in arguments):
        return
    printed = any(argument.startswith(("--cfg", "-c")) for argument in arguments)
    print(preset, file=sys.stderr if printed else sys.stdout, flush=True)
