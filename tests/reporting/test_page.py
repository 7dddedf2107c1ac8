"""What the page says, and that it believes nothing that the folders hold."""

import re
from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf
from pages import EVIL, evil, write_run, write_sweep
from recorded import EPS

from robustforge.cli.sweep import SweepSummary
from robustforge.files import write_json
from robustforge.indicators.rules import MEANING
from robustforge.indicators.verdict import UNAVERAGED, UNEVADED, UNTESTED
from robustforge.records.contributions import by_class, cases, contributions
from robustforge.records.table import read_records
from robustforge.reporting.advice import ADVICE
from robustforge.reporting.html.files import find_runs, read_run
from robustforge.reporting.html.images import galleries
from robustforge.reporting.html.page import html_page
from robustforge.reporting.html.rejection import rejection_rows
from robustforge.reporting.html.several import differences, leaderboard, named, sweep_figures
from robustforge.reporting.html.svg import Drawer
from robustforge.reporting.html.write import write_report, write_run_report


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def page(run):
    return html_page(read_run(run, settings={"dataset": {"name": "digits"}, "seed": 3}))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"))


def parts(page):
    return re.findall(r'aria-controls="(\w+)"', page)


def test_the_page_has_every_part_and_stands_alone(page):
    assert parts(page) == ["result", "attacks", "numbers", "rejection", "images", "training", "setup"]
    assert "unreliable (no iterated attack on the detector)" in page
    assert "attack=detector_aware" in page, "what to do next"
    assert "every pixel value may change by at most 9/255" in page
    assert len(page) < 2e6
    others = re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|url\((?!#)[^)]*\)|@import', page)
    assert [one for one in others if "www.w3.org" not in one] == []
    names = re.findall(r'\sid="([^"]+)"', page)
    assert len(names) == len(set(names)), "no id twice"


def test_what_every_attack_adds(run):
    records = read_records(run)
    found = contributions(records, "memdef", "linf", EPS, 0.05)
    assert [(one.key.attack, one.broken, one.added, one.left) for one in found] == [
        ("clean", 7.5, 7.5, 92.5), ("pgd", 25.0, 17.5, 75.0), ("fgsm", 17.5, 0.0, 75.0), ("square", 12.5, 10.0, 65.0),
    ]  # fmt: skip
    assert [one.alone for one in found] == [0.0, 7.5, 0.0, 10.0]
    assert contributions(records, "memdef", "linf", 0.9, 0.05) == []


def test_classes_and_cases(run):
    records = read_records(run)
    rows = by_class(records, "memdef", "linf", EPS, 0.05)
    assert (len(rows), sum(row.n for row in rows)) == (10, 40)
    assert sum(row.n * row.worst for row in rows) / 40 == pytest.approx(65)
    shown = cases(records, "memdef", "linf", EPS, 0.05, count=3)
    assert shown.worst == 3
    assert shown.index[0] == 35, "fgsm, pgd and square break it"
    assert shown.index[3:] == [0, 1, 2]
    assert not set(shown.index) & {37, 38, 39}, "wrong when clean"


def test_rates_that_were_evaluated_and_those_that_were_not(run):
    rows = rejection_rows(read_run(run))
    assert {(row["rate"], row["how"]) for row in rows} == {("1 %", "of the test images"), ("5 %", "evaluated")}
    for row in rows:
        assert row["correct"] + row["wrong"] + row["rejected"] == pytest.approx(100)
    clean = {row["rate"]: row["rejected"] for row in rows if row["input"] == "clean"}
    assert clean == {"1 %": 0, "5 %": 0}


def test_images_say_what_became_of_them(run):
    (gallery,) = galleries(read_run(run))
    assert [case["outcome"] for case in gallery["cases"]] == ["held", "fooled", "held", "rejected", "wrong"]
    assert [case["group"] for case in gallery["cases"]] == ["worst", "worst", "typical", "typical", "typical"]
    assert gallery["span"] == "9/255", "the budget is the range of the change"
    assert [one["name"] for one in gallery["cases"][0]["images"]] == ["clean", "attacked", "change", "rebuilt"]


def test_numbers_inside_a_figures_words_are_not_rounded():
    drawn = Drawer()(4, 3, lambda axes: (axes.plot([0, 1.23456]), axes.set_title("0.000729")), "a line")
    assert ">0.000729</text>" in drawn
    assert not re.search(r' d="[^"]*\d\.\d{3}', drawn)


def test_several_runs(sweep):
    runs = named([read_run(folder, name) for folder, name in find_runs([sweep]).items()])
    assert {run.name for run in runs} == {f"memory_size={m}, seed={s}" for m in (20, 50, 100) for s in (0, 1)}
    board = leaderboard(runs)
    assert board[0]["run"] == "memory_size=100, seed=0"
    (axis,) = sweep_figures(runs, Drawer())
    assert axis["title"] == "defense.memory_size"
    assert [(row["value"], row["seeds"]) for row in sorted(axis["rows"], key=lambda row: int(row["value"]))] == [
        ("20", 2), ("50", 2), ("100", 2),
    ]  # fmt: skip
    (row,) = [row for row in axis["rows"] if row["value"] == "20"]
    assert row["worst case"]["low"] < row["worst case"]["mean"] < row["worst case"]["high"]
    pairs = differences(runs)
    assert len(pairs) == 6 * 5
    assert all(one["low"] <= one["points"] <= one["high"] and one["n"] == 40 for one in pairs)


def test_runs_on_other_data_are_not_compared(sweep, tmp_path):
    other = write_run(tmp_path / "other", risk=False)
    write_json(other / "environment.json", {"data": "another"})
    folders = [sweep / "20-0", sweep / "50-0", other]
    assert len(differences([read_run(folder, folder.name) for folder in folders])) == 2


def test_a_sweep_is_one_page(sweep, tmp_path):
    out = write_report([sweep], tmp_path / "report.html", failed=["seed=9: no result"])
    page = out.read_text()
    assert parts(page) == ["leaderboard", "axes", "differences", "runs"]
    assert "seed=9: no result" in page
    assert len(page) < 4e6


def test_the_end_of_a_sweep_writes_it(tmp_path):
    write_run(tmp_path / "one", overrides=["seed=1"], risk=False)
    (tmp_path / "two").mkdir()
    write_json(tmp_path / "two" / "overrides.json", ["seed=2"])
    (tmp_path / "two" / "FAILED").write_text("exit code 2")
    cfg = {"hydra": {"sweep": {"dir": str(tmp_path)}}, "report": True}
    with pytest.raises(SystemExit, match="1"):  # a job failed
        SweepSummary().on_multirun_end(OmegaConf.create(cfg))
    page = (tmp_path / "report.html").read_text()
    assert "seed=2: no result" in page
    (tmp_path / "report.html").unlink()
    with pytest.raises(SystemExit, match="1"):
        SweepSummary().on_multirun_end(OmegaConf.create({**cfg, "report": False}))
    assert not (tmp_path / "report.html").exists()


def test_papers_tables(tmp_path):
    cell = {
        "row": "memdef", "column": "PGD 9/255", "paper": 90.1, "paper_surface": "slot_given", "ours": 91.0, "n": 1000,
        "adapted": None, "adapted_n": None, "adapted_surface": "selector", "shortfall": 0.0, "verdict": "reached",
    }  # fmt: skip
    write_json(tmp_path / "memdef" / "table1" / "cpu" / "table.json", {"header": ["Table 1", "note"], "cells": [cell]})
    page = write_report([tmp_path], tmp_path / "papers.html").read_text()
    assert parts(page) == ["tables"]
    assert all(words in page for words in ("Table 1", "90.10", "91.00 ✓", "ours: slot given"))


def test_every_reason_has_its_next_step():
    assert set(ADVICE) == {*MEANING, UNTESTED, UNEVADED, UNAVERAGED}


def test_a_folder_without_a_result_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no result\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    write_json(tmp_path / "result.json", {"schema": 1, "name": "x"})
    with pytest.raises(ValueError, match="evaluate the run again"):
        write_report([tmp_path], tmp_path / "report.html")


def test_nothing_that_a_folder_holds_is_run(tmp_path):
    folder = write_run(tmp_path / "run", said=evil, overrides=[f"{EVIL}=1"])
    (folder / "metrics" / "selector").rename(folder / "metrics" / "<img src=x onerror=evil>")
    np.savez(folder / "pickled.npz", kind=np.array([{"a": 1}], dtype=object))
    page = write_run_report(folder, {EVIL: EVIL}).read_text()
    assert "<script>window.evil" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;window.evil" in page
    assert "{{ 7 * 6 }}" in page, "no template is made of it"
    assert "script-src &#39;" not in page
    assert re.search(r"script-src 'sha256-[^']+' 'sha256-[^']+'\"", page), "only the page's own scripts may run"


def test_the_data_set_is_named_by_result_or_configuration(tmp_path):
    write_run(tmp_path / "one", risk=False)
    run = read_run(tmp_path / "one")
    told = replace(run, result={**run.result, "data": {"name": "digits"}})
    assert leaderboard([told])[0]["data"] == told.data == "digits"
    assert replace(run, result={**run.result, "data": {}}, settings={"dataset": {"name": "mnist"}}).data == "mnist"
    assert replace(run, result={**run.result, "data": {}}, settings={}).data == ""
