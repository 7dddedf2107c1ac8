"""The layers of the architecture, held by import-linter and by a fresh interpreter."""

import ast
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


def imports():
    """Module -> modules of the package that it imports anywhere: at the top, inside functions, for typing only.

    Imports of a package itself are left out: its __init__ imports its modules, which is no circle of ours.
    """
    paths = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("[a-z]*.py")}
    found = {}
    for module, path in paths.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[module] = names & set(paths)
    return found


def reached(start, graph):
    """All modules that ``start`` imports, directly or not."""
    seen, waiting = set(), [start]
    while waiting:
        more = graph.get(waiting.pop(), set()) - seen
        seen |= more
        waiting += more
    return seen


def test_no_import_circle():
    graph = imports()
    assert "robustforge.defenses.stages" in graph["robustforge.defenses.mrr.module"], "the graph is empty"
    assert [module for module in graph if module in reached(module, graph)] == []
    assert "b" in reached("b", {"a": {"b"}, "b": {"c"}, "c": {"a"}}), "a circle is noticed"


def test_methods_import_nothing_of_one_another():
    prefix, found = "robustforge.defenses.", set()
    for module, path in ((m, SOURCE / (m.replace(".", "/") + ".py")) for m in imports()):
        if not module.startswith(prefix) or module.count(".") < 3:
            continue
        mine = module.split(".")[2]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(prefix):
                other = node.module.split(".")[2]
                if other != mine and (SOURCE / "robustforge" / "defenses" / other).is_dir():
                    found.add((mine, other))
    assert found == {("dynamic", "adversarial_training")}


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
