"""What the documentation shows works: its Python runs, its commands compose, its files exist."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from robustforge.config.presets import find_preset
from robustforge.config.resolvers import register

ROOT = Path(__file__).resolve().parents[2]
METHODS = sorted((ROOT / "src" / "robustforge" / "defenses").glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "LEADERBOARD.md", *sorted((ROOT / "docs").glob("*.md")), *METHODS]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    return [text for name, text in FENCE.findall(page.read_text()) if name == language]


def commands():
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    name = page.parent.name if page in METHODS else page.stem
                    yield pytest.param(words, id=f"{name}: {' '.join(words)}")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=lambda page: page.stem)
def test_python_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "snippets"}
    for number, text in enumerate(blocks(page, "python")):
        exec(compile(text, f"{page.name}, snippet {number + 1}", "exec"), names)


@pytest.mark.parametrize("words", list(commands()))
def test_commands_are_known_and_compose(words):
    register()
    while words[0] in ("uv", "run") or words[0] == "python":
        words = words[1:]
    program, *arguments = words
    if program == "train.py":
        arguments = [word for word in arguments if word not in ("-m", "--help", "--help-all", "--cfg", "job")]
        _compose("train", [*_presets(arguments), *(_first(word) for word in arguments)])
    elif program in ("scripts/evaluate.py", "scripts/make_adversarial_set.py"):
        name = {"scripts/evaluate.py": "evaluate"}.get(program, "adversarial_set")
        # the paper's protocol is the one of the run's defense
        _compose(name, [re.sub("^protocol=paper$", "protocol=paper/memdef", _first(word)) for word in arguments])
    elif program == "scripts/reproduce.py":
        table = next((word for word in arguments if not word.startswith("--") and "=" not in word), None)
        assert table in (None, "all") or (ROOT / "conf" / "reproduce" / f"{table}.yaml").is_file()
    elif program.startswith(("scripts/", "examples/")) or program == ".ci/run":
        assert (ROOT / program).is_file()
    else:
        assert program in ("pip", "pytest", "sync", "pre-commit", "sphinx-build"), words


def _presets(arguments):
    preset = find_preset(arguments, ROOT / "conf")
    return preset.put_into([]) if preset else []


def _first(word):
    """One value of a sweep."""
    key, equal, value = word.partition("=")
    value = re.sub(r"choice\((.*)\)", r"\1", value)
    return word if value.startswith(("[", "{")) else key + equal + value.split(",")[0]


def _compose(name, overrides):
    overrides = [word for word in overrides if not word.startswith(("hydra.", "hydra/"))]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose(name, overrides=overrides, return_hydra_config=True)


def test_files_of_two_file_examples_fit_together(tmp_path, monkeypatch):
    """The module of each example on extending.md is the one that its YAML names."""
    page = ROOT / "docs" / "extending.md"
    modules = dict(re.match(r"# (\w+)\.py\n(.*)", text, re.DOTALL).groups() for text in blocks(page, "python"))
    assert len(modules) == 3
    for text in blocks(page, "yaml"):
        group, name = re.match(r"# conf/(\w+)/(\w+)\.yaml", text).groups()
        module, cls = re.search(r"_target_: (\w+)\.(\w+)", text).groups()
        assert module == name
        assert group in ("defense", "attack", "dataset")
        assert f"class {cls}(" in modules[module]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    sphinx = pytest.importorskip("sphinx.cmd.build", reason="Sphinx is not installed: uv sync --group docs")
    assert sphinx.build_main(["-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path)]) == 0
    assert "protocol" in (tmp_path / "concepts.html").read_text()
    assert sys.modules["sphinx"]
