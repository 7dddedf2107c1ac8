"""What a fresh interpreter loads before there is anything to run, and how long that takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "lightning", "torchvision", "torchattacks", "pyarrow", "matplotlib", "wandb", "sklearn")
COMMAND = "import runpy; runpy.run_path('train.py', run_name='__main__')"
REPORT = "print('loaded:', *(name for name in {names!r} if name in sys.modules), file=sys.stderr)"


@pytest.mark.parametrize(
    ("code", "arguments", "names", "said"),
    [
        ("import robustforge", (), (*HEAVY, "numpy", "hydra", "omegaconf"), ""),
        (COMMAND, ("--help-all",), HEAVY, "attack/torchattacks: "),
        (COMMAND, ("--cfg", "job"), HEAVY, "defense_name: "),
    ],
    ids=["package", "help", "composition"],
)
def test_nothing_heavy_is_loaded_before_a_job_runs(code, arguments, names, said):
    script = f"import atexit, sys; atexit.register(lambda: {REPORT.format(names=names)}); {code}"
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert done.stderr.strip().splitlines()[-1] == "loaded:"
    # processor time, which other processes disturb least; --help-all takes 2 s of it, and took 11 s with all of these loaded
    assert seconds < 8


@pytest.mark.slow
def test_a_run_in_a_fresh_interpreter_shows_none_of_lightnings_remarks(tmp_path):
    """Lightning sets its log level when it is imported, which is after Hydra has set up logging."""
    done = subprocess.run(
        [sys.executable, "train.py", "defense=none", "debug=fast", "dataset.limit_train=64", "evaluate=false",
         "trainer.enable_progress_bar=false", f"paths.output_dir={tmp_path}"],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "made" in done.stdout
    assert "available" not in done.stdout + done.stderr
    assert "litlogger" not in done.stdout + done.stderr
