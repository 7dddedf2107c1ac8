"""Figures and lines beside a reproduced table."""

import json

import numpy as np
import pytest
from made_up import table
from PIL import Image
from recorded import join, make_cell

from robustforge.papers.figures import WIDTH, diagnostic_lines, draw, keep
from robustforge.papers.outcome_curves import accepted_share, shares
from robustforge.papers.specification import Panel
from robustforge.records.table import read_records
from robustforge.reporting.result import SCHEMA

PANEL = {"label": "ours", "run": "a", "system": "gmvae", "attack": "fgsm", "surface": "encoder"}
EMPTY = {"paper_table": "gmvae_text", "rows": [], "columns": [], "runs": {"a": {}, "b": {}}}


def cell(attack, eps, right, accepted, surface="encoder", risk=None):
    made = make_cell("gmvae", attack, "none" if attack == "clean" else surface, eps, right, accepted=accepted)
    return made | {"risk": np.where(made["accepted"], 0.5, 2.0) if risk is None else np.asarray(risk)}


@pytest.fixture
def records():
    return read_records(join(
        cell("clean", 0.0, [1, 1, 1, 0], [1, 1, 0, 1]),
        cell("fgsm", 0.1, [1, 0, 0, 0], [1, 1, 0, 0]),
        cell("fgsm", 0.2, [0, 0, 0, 0], [0, 0, 0, 0]),
        cell("fgsm", 0.2, [1, 1, 1, 1], [1, 1, 1, 1], surface="white_box"),
    ))  # fmt: skip


def test_shares_by_hand(records):
    found = {
        eps: [part[name]["percent"] for name in ("accepted_correct", "accepted_wrong", "rejected")]
        for eps, part in shares(Panel(**PANEL), records).items()
    }
    assert found == {0.0: [50, 25, 25], 0.1: [25, 25, 50], 0.2: [0, 0, 100]}
    assert shares(Panel(**PANEL), None) == {}


def test_acceptance_by_hand():
    clean = read_records(cell("clean", 0.0, [1, 1, 1, 1], [1, 1, 1, 1], risk=[0.1, 0.2, 0.3, 0.4]))
    attacked = read_records(cell("fgsm", 0.1, [0, 0, 1, 0], [1, 1, 1, 1], risk=[0.15, 0.35, 0.05, 9.0]))
    rejected, accepted = accepted_share(clean, attacked)
    # thresholds 9, .4, .35, .3, .2, .15, .1, .05: the wrong ones' risks are .15, .35 and 9
    assert rejected.tolist() == [0, 0, 0.25, 0.25, 0.5, 0.75, 0.75, 1]
    assert accepted.tolist() == [0.75, 0.5, 0.5, 0.25, 0.25, 0.25, 0, 0]


def test_figures_and_lines_of_a_specification(records, tmp_path):
    spec = table(
        EMPTY,
        figures=[
            {"file": "curves.png", "kind": "outcomes", "panels": [PANEL, {**PANEL, "run": "b"}]},
            {"file": "acceptance.png", "kind": "acceptance", "panels": [{**PANEL, "eps": 0.1}, {**PANEL, "run": "b", "eps": 0.1}]},
            {"file": "none.png", "kind": "outcomes", "panels": [{**PANEL, "run": "b"}]},
        ],
        diagnostics=["frechet_distance", "absent"],
    )  # fmt: skip
    made = draw(spec, {"a": records}, tmp_path)
    assert [path.name for path in made] == ["curves.png", "acceptance.png"]
    assert all(path.stat().st_size > 5000 for path in made)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(
        json.dumps({"schema": SCHEMA, "diagnostics": {"frechet_distance": 4.25, "other": 1.0}})
    )
    assert diagnostic_lines(spec, ["a"], tmp_path) == ["a: frechet distance 4.250."]
    assert draw(table(EMPTY), {}, tmp_path) == diagnostic_lines(table(EMPTY), ["a"], tmp_path) == []
    with pytest.raises(ValueError, match="outcomes, acceptance"):
        table(EMPTY, figures=[{"file": "x.png", "kind": "pie", "panels": []}])


def test_kept_figures_are_small_copies(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 2 * WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "wide.png")
    Image.fromarray(noise[:50, :60]).save(tmp_path / "small.png")
    wide, small = keep([tmp_path / "wide.png", tmp_path / "small.png"], tmp_path / "table")
    assert Image.open(wide).size == (WIDTH, 150)
    assert Image.open(small).size == (60, 50), "nothing is enlarged"
    assert wide.stat().st_size < (tmp_path / "wide.png").stat().st_size / 4
