"""The two measuring commands: rows beside bars, exit codes, tables by name."""

import sys

import pytest
from benchmarks import BenchRow
from benchmarks import command as bench

from robustforge.cli import reproduce
from robustforge.cli.replacing import make_way
from robustforge.config.run_folder import claim
from robustforge.types import UserError


def row(ratio: float, *, higher: bool = True) -> BenchRow:
    return BenchRow("made up", ratio, 1.0, "images/s", ratio, 2.0, higher_is_better=higher)


@pytest.mark.parametrize(
    ("ratio", "higher", "passed"), [(2.0, True, True), (1.9, True, False), (1.9, False, True), (2.1, False, False)]
)
def test_a_row_knows_its_bar(ratio, higher, passed):
    assert row(ratio, higher=higher).passed is passed


@pytest.mark.parametrize(("ratio", "code"), [(3.0, 0), (1.0, 1)])
def test_bench_exits_1_when_a_row_falls_short(monkeypatch, capsys, ratio, code):
    import benchmarks.memory

    monkeypatch.setattr(benchmarks.memory, "run", lambda: [row(ratio)])
    monkeypatch.setattr(sys, "argv", ["bench.py", "memory"])
    with pytest.raises(SystemExit) as stop:
        bench.main()
    assert stop.value.code == code
    assert ("reached" if code == 0 else "short") in capsys.readouterr().out


def test_reproduce_lists_tables_and_refuses_others(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--list", "only=comdef*", "profile=cpu"])
    with pytest.raises(SystemExit) as stop:
        reproduce.main()
    assert stop.value.code == 0
    assert "comdefend/break" in capsys.readouterr().out
    with pytest.raises(UserError, match="memdef/table1"):
        reproduce.load("memdef/table9")


def test_reproduce_says_which_profiles_exist(tmp_path):
    with pytest.raises(UserError, match="cpu, paper"):
        reproduce.reproduce("memdef/table1", "tpu", [], tmp_path)


def test_a_table_without_runs_shows_every_cell_as_not_run(tmp_path, capsys):
    assert reproduce.reproduce("memdef/table1", "cpu", [], tmp_path, only=[]) == 0
    text = (tmp_path / "memdef" / "table1" / "cpu" / "table.md").read_text()
    assert "not run" in text
    assert "cpu profile" in text
    assert "90.02" in text  # the paper's number is there all the same


def test_a_failed_run_is_told_and_the_others_are_shown(tmp_path, monkeypatch, capsys):
    made = []

    def train(overrides, folder):
        made.append((folder.name, list(overrides)))
        return int(folder.name == "full")

    monkeypatch.setattr(reproduce, "_train", train)
    assert reproduce.reproduce("memdef/table5", "cpu", ["seed=1"], tmp_path, only=["selector", "full"]) == 1
    assert [name for name, _ in made] == ["selector", "full"]
    assert made[0][1] == [*reproduce.load("memdef/table5").overrides("selector", "cpu"), "seed=1"]
    text = (tmp_path / "memdef" / "table5" / "cpu_seed-1" / "table.md").read_text()
    assert "run failed: exit code 1" in text
    assert "Further overrides: seed=1." in text


@pytest.mark.parametrize(
    ("extra", "place"),
    [
        ([], "cpu"),
        (["paths.data_dir=elsewhere", "threads=1", "trainer.devices=2", "logger=wandb"], "cpu"),
        (["seed=1"], "cpu_seed-1"),
        (["threads=1", "seed=1"], "cpu_seed-1"),
        (["defense.width=2", "seed=1"], "cpu_defense.width-2_seed-1"),
        (["seed=1", "defense.width=2"], "cpu_defense.width-2_seed-1"),
    ],
)
def test_a_table_of_other_settings_has_a_folder_of_its_own(tmp_path, monkeypatch, extra, place):
    """Two settings in turn, or at once, find their own runs again."""
    made = []
    monkeypatch.setattr(reproduce, "_train", lambda _, folder: made.append(folder) or 0)
    assert reproduce.reproduce("memdef/table5", "cpu", extra, tmp_path, only=["full"]) == 0
    assert made == [tmp_path / "memdef" / "table5" / place / "full"]
    assert (made[0].parent / "table.md").is_file()


def test_a_run_of_other_settings_makes_way(tmp_path, compose, capsys):
    now = ["defense=adversarial_training", "dataset=digits"]
    folder = tmp_path / "mnist"
    make_way(folder, now, reproduce.OF_MACHINE)
    assert not list(tmp_path.iterdir()), "nothing was run before"
    claim(folder, compose(*now), "data")
    for wrong in ("nobody=1", "seed=${nobody}"):
        make_way(folder, [*now, wrong], reproduce.OF_MACHINE)
        assert (folder / "config.yaml").exists(), "train.py says what is wrong with it"
    make_way(folder, [*now, "seed=2"], reproduce.OF_MACHINE)
    for number in (2, 3):
        claim(folder, compose(*now, "seed=1", "threads=2"), "data")
        make_way(folder, [*now, "seed=1", "paths.output_dir=elsewhere"], reproduce.OF_MACHINE)
        assert (folder / "config.yaml").exists(), "it is the same run"
        make_way(folder, now, reproduce.OF_MACHINE)
        assert not folder.exists()
        assert (tmp_path / "earlier" / f"mnist-{number}" / "config.yaml").exists()
        assert "seed): it is" in capsys.readouterr().out
