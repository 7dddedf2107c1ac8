"""Every file of conf/reproduce: its runs compose in every profile, its rows and columns are the paper's."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from robustforge.cli import table_states
from robustforge.cli.table_states import load, tables
from robustforge.papers.printed import list_paper_tables, load_paper_table, paper_row, paper_value
from robustforge.papers.specification import PROFILES
from robustforge.types import UserError

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "reproduce"
NAMES = tables()
SPECS = {name: load(name) for name in NAMES}
CASES = [
    (name, run, profile) for name, spec in SPECS.items() for profile in spec.profiles for run in spec.runs_of(profile)
]
FIRST = {name: next(iter(spec.runs)) for name, spec in SPECS.items()}
GROUPS = re.compile(r"[+~]?(defense|protocol|experiment|dataset|selector|stack|inner|feature_loss)[@=].*")


def like_an_earlier_one(spec, run):
    """Whether an earlier run of the table chooses the same defense, protocol and data set, with other settings."""
    kinds = [[o for o in spec.overrides(one, "cpu") if GROUPS.fullmatch(o)] for one in spec.runs]
    place = list(spec.runs).index(run)
    return kinds[place] in kinds[:place]


def case(name, run, profile):
    """Each table is composed with each kind of run by the profile cpu, and with its first run by the others.

    All others are among the slow tests.
    """
    slow = like_an_earlier_one(SPECS[name], run) if profile == "cpu" else run != FIRST[name]
    return pytest.param(name, run, profile, marks=[pytest.mark.slow] if slow else [], id=f"{name}-{run}-{profile}")


def test_every_file_is_listed():
    assert {FOLDER / f"{name}.yaml" for name in NAMES} == set(FOLDER.rglob("*.yaml"))
    assert len(NAMES) >= 2


def test_an_unknown_table_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="memdef/table1"):
        load("memdef/table0")


def test_a_mistake_in_a_file_names_file_key_and_near_miss(monkeypatch, tmp_path):
    text = (FOLDER / "memdef" / "table5.yaml").read_text()
    path = tmp_path / "reproduce" / "memdef" / "table5.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("columns:", "colums:"))
    monkeypatch.setattr(table_states, "config_folder", lambda: tmp_path)
    with pytest.raises(UserError, match="conf/reproduce/memdef/table5.yaml: .* 'colums': did you mean 'columns'"):
        load("memdef/table5")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_it_is_and_how_to_run_it(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    comment = text[: text.index("title:")]
    assert all(line.startswith("#") for line in comment.strip().splitlines())
    assert f"python scripts/reproduce.py {name} profile=cpu" in comment
    assert len(comment.splitlines()) >= 2
    assert max(map(len, text.splitlines())) <= 130, "one key a line, or a short mapping"


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_columns_are_the_papers(name):
    spec = SPECS[name]
    compared = name.startswith("leaderboard/")  # all methods side by side: no paper has it
    assert ({"cpu"} if compared else {"cpu", "paper"}) <= set(spec.profiles) <= set(PROFILES)
    for profile in spec.profiles.values():
        assert profile.note.strip()
    assert len({(cell.row, cell.column) for cell in spec.cells}) == len(spec.cells)
    numbers, shown = 0, set()
    for cell in spec.cells:
        assert cell.paper_table in list_paper_tables() or (compared and cell.paper_row is None)
        shown |= {run for run in (*cell.run, cell.adapted_run, cell.baseline) if run}
        if cell.paper_key is not None and cell.paper_row is not None:  # a row may be ours beside the paper's
            theirs = paper_row(load_paper_table(cell.paper_table), cell.paper_row)
            numbers += paper_value(theirs, cell.paper_key, cell.paper_index) is not None
    assert numbers or compared, "the paper prints none of these cells"
    shown |= {run for figure in spec.curves for run in figure.runs.values()}
    assert shown == set(spec.runs), "a run that nothing shows"


@pytest.mark.parametrize(("name", "run", "profile"), [case(*one) for one in CASES])
def test_run_composes_and_covers_its_cells(compose, name, run, profile):
    spec = SPECS[name]
    cfg = compose(*spec.overrides(run, profile))
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    suites = plain["protocol"]["suites"].values()
    attacks = {a["name"] for suite in suites for a in suite["attacks"].values()}
    if plain["protocol"].get("main"):  # joins every suite
        attacks.add(plain["protocol"]["main"].get("name"))
    threats = [*plain["protocol"]["budgets"], *(t for suite in suites for t in suite.get("budgets") or ())]
    budgets = [threat["eps"] for threat in threats]
    # what a row reads must be what its run attacks
    named = {s for suite in suites for s in suite.get("surfaces") or ()}
    everything = any("surfaces" in suite and suite["surfaces"] is None for suite in suites)
    for cell in spec.cells:
        if run in cell.run and cell.attack not in ("clean", "worst_case"):
            assert {cell.attack, *cell.pool} <= attacks
            assert cell.eps is None or any(abs(cell.eps - eps) < 1e-6 for eps in budgets)
            if cell.system == cfg.defense_name:
                assert everything or cell.paper_surface in named, (cell.row, cell.column)


def test_the_two_profiles_differ():
    for spec in SPECS.values():
        if "paper" not in spec.profiles:
            continue
        run = next(iter(spec.runs))
        assert spec.overrides(run, "cpu") != spec.overrides(run, "paper")


def test_the_auto_encoders_tables_share_what_they_train(compose):
    """Tables find each other's stages in the store, and compare purifiers on one classifier, or their settings differ."""

    def stages(table, run, *names):
        name = f"cae/{table}"
        cfg = OmegaConf.to_container(compose(*load(name).overrides(run, "cpu")), resolve=True)
        defense = cfg["defense"]
        plain = defense.get("undefended_training", defense["training"])
        return [cfg["model"], cfg["dataset"], plain], [defense[key] for key in names]

    denoiser = ("denoiser", "train_attacks", "train_budgets", "threat", "training", "mix_clean", "guidance")
    classifier, fgsm = stages("table2", "mnist_fgsm", *denoiser)
    assert stages("unseen", "mnist_fgsm", *denoiser) == stages("table3", "cae", *denoiser) == (classifier, fgsm)
    for table, run in (("table1a", "mnist"), ("mixture", "mnist_mixture"), ("table3", "defense_gan")):
        assert stages(table, run)[0] == classifier, table
