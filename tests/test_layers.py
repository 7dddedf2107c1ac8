"""The layers of the architecture, held by import-linter and by a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
READING = ", ".join(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for folder in ("records", "indicators", "papers", "reporting")
    for path in sorted((SOURCE / "robustforge" / folder).rglob("[a-z]*.py"))
)


def test_import_contracts_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert "4 kept, 0 broken" in shown, "a contract is gone, or was not checked"


def test_a_breach_is_noticed(tmp_path, monkeypatch, capsys):
    """The same layers over a package in which an attack imports a defense."""
    for name, text in {
        "toy/__init__.py": "", "toy/defenses.py": "", "toy/attacks.py": "import toy.defenses\n",
        "linter.toml": '[tool.importlinter]\nroot_package = "toy"\n[[tool.importlinter.contracts]]\nname = "one way"\n'
                       'type = "layers"\nlayers = ["toy.defenses", "toy.attacks"]\n',
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert lint_imports(config_filename=str(tmp_path / "linter.toml"), cache_dir=None) != 0
    assert "toy.attacks -> toy.defenses" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            f"import {READING}",
            ("torch", "lightning", "hydra", "omegaconf", "wandb"),
        ),
        (
            "import robustforge.types, robustforge.attacks.pgd, robustforge.nn.resnet, robustforge.losses.robust",
            ("lightning", "hydra", "omegaconf", "wandb"),
        ),
        ("import robustforge", ("torch", "numpy")),
    ],
    ids=["reading", "maths", "package"],
)
def test_what_a_fresh_interpreter_loads(modules, absent):
    code = f"import sys; {modules}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
