"""Every file of conf/reproduce: its runs compose in every profile, its rows and columns are the paper's."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from robustforge.cli.reproduce import load, overrides_of, tables
from robustforge.papers.printed import list_paper_tables, load_paper_table, paper_row, paper_value
from robustforge.types import UserError

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "reproduce"
NAMES = tables()
CASES = [
    (name, run, profile) for name in NAMES for run in load(name)["runs"] for profile in load(name)["profiles"]
]  # fmt: skip


def cells(spec):
    """Rows times columns and runs; what a row does not say may stand in the column, and the other way round."""
    flat = [{**column, **row, **{k: v for k, v in column.items() if k != "label"}}
            for row in spec["rows"] for column in spec["columns"]]  # fmt: skip
    several = [cell for cell in flat if isinstance(cell.get("run"), list)]
    return [cell for cell in flat if cell not in several] + [{**c, "run": run} for c in several for run in c["run"]]


def test_every_file_is_listed():
    assert {FOLDER / f"{name}.yaml" for name in NAMES} == set(FOLDER.rglob("*.yaml"))
    assert len(NAMES) >= 2


def test_an_unknown_table_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="memdef/table1"):
        load("memdef/table0")


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_columns_are_the_papers(name):
    spec = load(name)
    assert spec["paper_table"] in list_paper_tables()
    paper = load_paper_table(spec["paper_table"])
    assert set(spec["profiles"]) == {"cpu", "paper"}
    for profile in spec["profiles"].values():
        assert profile["note"].strip()
    labels = [row["label"] for row in spec["rows"]]
    assert len(set(labels)) == len(labels)
    numbers, shown = 0, set()
    for cell in cells(spec):
        assert "run" not in cell or cell["run"] in spec["runs"], cell["label"]
        shown |= {cell[key] for key in ("run", "adapted_run", "baseline") if key in cell}
        if cell["paper_key"] is not None and cell.get("paper_row") is not None:  # a row may be ours beside the paper's
            table = load_paper_table(cell["paper_table"]) if "paper_table" in cell else paper
            theirs = paper_row(table, cell["paper_row"])
            numbers += paper_value(theirs, cell["paper_key"], cell.get("paper_index")) is not None
    assert numbers, "the paper prints none of these cells"
    shown |= {run for figure in spec.get("curves", []) for run in figure["runs"].values()}
    assert shown == set(spec["runs"]), "a run that nothing shows"


@pytest.mark.parametrize(("name", "run", "profile"), CASES, ids=lambda part: str(part))
def test_run_composes_and_covers_its_cells(compose, name, run, profile):
    spec = load(name)
    cfg = compose(*overrides_of(spec, run, profile))
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    suites = plain["protocol"]["suites"].values()
    attacks = {a["name"] for suite in suites for a in suite["attacks"].values()}
    threats = [*plain["protocol"]["budgets"], *(t for suite in suites for t in suite.get("budgets") or ())]
    budgets = [threat["eps"] for threat in threats]
    for cell in cells(spec):
        if cell.get("run") == run:
            assert cell["attack"] == "clean" or {cell["attack"], *cell.get("pool", ())} <= attacks
            clean = cell["attack"] == "clean" or "eps" not in cell
            assert clean or any(abs(cell["eps"] - eps) < 1e-6 for eps in budgets)
    # what a row reads must be what its run attacks
    named = {s for suite in plain["protocol"]["suites"].values() for s in suite.get("surfaces") or ()}
    everything = any(
        "surfaces" in suite and suite["surfaces"] is None for suite in plain["protocol"]["suites"].values()
    )
    for cell in cells(spec):
        if cell.get("run") == run and cell["system"] == cfg.defense_name and cell["attack"] != "clean":
            assert everything or cell["paper_surface"] in named, cell["label"]


def test_the_two_profiles_differ():
    for name in NAMES:
        spec = load(name)
        run = next(iter(spec["runs"]))
        assert overrides_of(spec, run, "cpu") != overrides_of(spec, run, "paper")


def test_the_auto_encoders_tables_share_what_they_train(compose):
    """Tables find each other's stages in the store, and compare purifiers on one classifier, or their settings differ."""

    def stages(table, run, *names):
        name = f"cae/{table}"
        cfg = OmegaConf.to_container(compose(*overrides_of(load(name), run, "cpu")), resolve=True)
        defense = cfg["defense"]
        plain = defense.get("undefended_training", defense["training"])
        return [cfg["model"], cfg["dataset"], plain], [defense[key] for key in names]

    denoiser = ("denoiser", "train_attacks", "train_budgets", "threat", "training", "mix_clean", "guidance")
    classifier, fgsm = stages("table2", "mnist_fgsm", *denoiser)
    assert stages("unseen", "mnist_fgsm", *denoiser) == stages("table3", "cae", *denoiser) == (classifier, fgsm)
    for table, run in (("table1a", "mnist"), ("mixture", "mnist_mixture"), ("table3", "defense_gan")):
        assert stages(table, run)[0] == classifier, table
