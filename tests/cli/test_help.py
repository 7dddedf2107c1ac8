"""--help fits a screen; everything is behind --help-all."""

from contextlib import suppress

import pytest

from robustforge.cli.help import PAGES, WIDTH, answer_help, screen
from robustforge.config.locate import config_folder

LINES = 50


@pytest.mark.parametrize("name", PAGES)
def test_help_fits_a_screen_and_names_what_there_is(name):
    lines = screen(name).splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH
    assert any("--help-all" in line for line in lines)
    for groups in PAGES[name].groups.values():
        for group in groups:
            assert (config_folder() / group).is_dir()
            assert any(line.startswith(f"  {group} ") for line in lines)


def test_all_defenses_and_data_sets_are_shown():
    shown = screen("train")
    for group in ("defense", "dataset", "protocol"):
        assert all(path.stem in shown for path in (config_folder() / group).glob("*.yaml"))
    assert "more)" in shown, "of the attacks a part"


def test_help_ends_the_command_and_the_full_list_is_hydras(capsys):
    for asked in ("--help", "-h"):
        with pytest.raises(SystemExit) as stop:
            answer_help("train", ["defense=mrr", asked])
        assert stop.value.code == 0
        assert "What is trained" in capsys.readouterr().out
    assert answer_help("train", ["defense=mrr", "--help-all"]) == ["defense=mrr", "--help"]
    assert answer_help("train", ["seed=1"]) == ["seed=1"]
    assert capsys.readouterr().out == ""


def test_every_hydra_command_has_a_screen():
    roots = {path.stem for path in config_folder().glob("*.yaml")} - {"wandb_sweep"}
    assert set(PAGES) == roots


@pytest.mark.parametrize("program", ["reproduce", "bench"])
def test_the_other_commands_help_fits_and_lists_everything_when_asked(monkeypatch, capsys, tmp_path, program):
    from benchmarks import command as bench

    from robustforge.cli import reproduce, table_states

    monkeypatch.setenv("COLUMNS", str(WIDTH))
    nothing_was_run = [f"results_dir={tmp_path}"] * (program == "reproduce")  # states of runs are tested elsewhere
    shown = {}
    for asked in ("--help", "--help-all"):
        monkeypatch.setattr("sys.argv", [f"{program}.py", asked, *nothing_was_run])
        with suppress(SystemExit):
            {"reproduce": reproduce, "bench": bench}[program].main()
        shown[asked] = capsys.readouterr().out
    lines = shown["--help"].splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH
    assert "--help-all" in shown["--help"]
    assert len(shown["--help-all"]) > len(shown["--help"])
    names = bench.names() if program == "bench" else table_states.tables()
    assert all(name.rpartition("/")[2] in shown["--help"] for name in names)
