"""``report.py``: what it writes, what it refuses, and that it runs nothing that it finds."""

import sys

import pytest
from omegaconf import OmegaConf
from pages import write_run

from robustforge.cli.report import main


@pytest.fixture
def report(monkeypatch, capsys, tmp_path):
    """report(*arguments): exit code and what was printed, with tmp_path as the current folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return call


def test_a_run_becomes_a_page(report, tmp_path):
    folder = write_run(tmp_path / "run")
    defense = {"_target_": "robustforge.defenses.memdef.MemoryDefense", "memory_size": 1234}
    OmegaConf.save(
        {"defense": defense, "paths": {"data_dir": "/home/me"}, "dataset": {"name": "mine"}, "trainer": {"devices": 1}},
        folder / "config.yaml",
    )
    assert report(folder) == (0, "wrote report.html\n")
    page = (tmp_path / "report.html").read_text()
    assert "defense.memory_size" in page
    assert "1234" in page
    assert "/home/me" not in page, "where things lie is not shared"
    assert report(tmp_path, "out=there/all.html") == (0, "wrote there/all.html\n")


def test_help_helps(report):
    code, shown = report("--help")
    assert code == 0
    assert "report.py outputs/reproduce out=papers.html" in shown


@pytest.mark.parametrize(
    ("crafted", "named"),
    [
        ({"defense": {"_target_": "os.system", "command": "touch {}"}}, "os.system"),
        ({"defense": {"_target_": "builtins.open", "file": "{}", "mode": "w"}}, "builtins.open"),
        ({"name": "${oc.env:SECRET}"}, "oc.env:SECRET"),
        ({"name": "${oc.decode:'!!python/object/apply:os.system [touch {}]'}"}, "oc.decode"),
    ],
)
def test_a_crafted_run_is_refused_and_nothing_of_it_is_run(report, tmp_path, monkeypatch, crafted, named):
    monkeypatch.setenv("SECRET", "the secret")
    folder, trace = write_run(tmp_path / "run"), tmp_path / "trace"
    text = OmegaConf.to_yaml(OmegaConf.create(crafted)).replace("{}", str(trace))
    (folder / "config.yaml").write_text(text)
    code, shown = report(folder)
    assert code == 2
    assert named in shown
    assert "the secret" not in shown
    assert not trace.exists()
    assert not (tmp_path / "report.html").exists(), "nothing is written"


def test_mistakes_are_one_sentence(report, tmp_path):
    assert report(tmp_path / "nothing") == (2, f"Error: There is no result.json at or below '{tmp_path / 'nothing'}': give the folder of a finished run.\n")  # fmt: skip
    assert report("out=x.html")[0] == 2
    folder = write_run(tmp_path / "run")
    assert report(folder, f"out={folder / 'result.json' / 'x.html'}")[0] == 2
    (folder / "result.json").write_text("{]")
    code, shown = report(folder)
    assert (code, shown.startswith("Error: ")) == (2, True)
