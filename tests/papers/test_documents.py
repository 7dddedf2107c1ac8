"""Tables in documents: markers, what they show, and that the repository's own documents are fresh."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import table
from test_evidence import SPEC, content, result, spec

from robustforge.cli import documents
from robustforge.cli.table_states import load, tables
from robustforge.papers import claims_figure
from robustforge.papers.documents import fill, parse_marker
from robustforge.papers.evidence import read_evidence, write_evidence
from robustforge.papers.headlines import Headline, read_headlines
from robustforge.reporting.text import MISSING

__all__ = ["result", "spec"]
ROOT = Path(__file__).resolve().parents[2]
PAGE = "# Page\n\nBefore.\n\n<!-- results: {} -->\nold\n<!-- end of results -->\n\nAfter.\n"


@pytest.fixture
def results(spec, result, tmp_path):
    write_evidence(tmp_path / "made" / "up.json", content(spec, a=result, b=result))
    return tmp_path


def test_a_table_is_written_between_its_markers(results):
    text = fill(PAGE.format("made/up"), results, "page.md").text
    assert text.startswith(
        "# Page\n\nBefore.\n\n<!-- results: made/up -->\n\n`python scripts/reproduce.py made/up profile=cpu`"
    )
    assert text.endswith("<!-- end of results -->\n\nAfter.\n")
    assert "old" not in text
    assert "| first | paper | 92.36 | 89.97 |" in text
    assert "data: CIFAR-10 (JPEG); test images: 10; seeds: 3; version 1, commit ccccccccc; 2026-01-02" in text
    assert fill(text, results, "page.md").text == text, "the same again changes nothing"


def test_figures_beside_the_file_stand_above_a_whole_table(results):
    folder = results / "made" / "up"
    folder.mkdir()
    (folder / "fig_3.png").write_bytes(b"")
    page = PAGE.format("made/up")
    assert "![made/up: fig 3](results/made/up/fig_3.png)" in fill(page, results, "page.md").text
    assert "(../../../../results/made/up/fig_3.png)" in fill(page, results, "src/robustforge/defenses/x/README.md").text
    assert "fig_3" not in fill(PAGE.format("made/up rows=first"), results, "page.md").text


def test_what_else_the_runs_measured_stands_below_a_whole_table(results):
    path = results / "made" / "up.json"
    content = read_evidence(path)
    content["runs"]["a"]["diagnostics"] = {"feature_norm": 0.35613, "agreement": 1.0}
    content["runs"]["b"]["diagnostics"] = {"agreement": 0.5}
    write_evidence(path, content)
    text = fill(PAGE.format("made/up"), results, "page.md").text
    assert "| run | feature norm | agreement |" in text
    assert f"| a | 0.3561 | 1 |\n| b | {MISSING} | 0.5 |" in text
    assert "agreement" not in fill(PAGE.format("made/up rows=first"), results, "page.md").text


def test_a_table_without_a_file_says_how_to_make_one(results):
    written = fill(PAGE.format("made/other profile=gpu"), results, "page.md")
    assert (
        "Not run on this version; `python scripts/reproduce.py made/other profile=gpu` makes this table."
        in written.text
    )
    assert (written.tables, written.missing) == (["made/other"], ["made/other"])


def test_rows_that_were_not_run_have_the_papers_numbers_alone(spec, result, tmp_path):
    write_evidence(tmp_path / "made" / "up.json", content(spec, a=result))
    text = fill(PAGE.format("made/up"), tmp_path, "page.md").text
    assert text.count("| first | paper | 92.36 | 89.97 |") == 1
    assert text.count("ours: slot_given") == 1
    second, mean = (f"| {row} | paper; not run here |" for row in ("second", "mean"))
    assert f"{second} 92.36 | 89.97 |\n{mean} {MISSING} [1] | {MISSING} [1] |" in text
    assert f"<sub>{MISSING} [1] the paper prints no number.</sub>" in text
    text = fill(PAGE.format("made/up one_line"), tmp_path, "page.md").text
    assert "| second" not in text
    assert "<sub>not run on this version: second, mean.</sub>" in text


def test_one_line_and_some_rows_and_columns(results):
    text = fill(PAGE.format("made/up one_line rows='first;mean' columns=PGD"), results, "page.md").text
    assert "| first | 90.0 (60 to 98) |" in text
    assert "| mean | 90.0 ±0.0 |" in text
    below = fill(PAGE.format("made/up"), results, "page.md").text
    assert f"95 % interval over them; {MISSING} [1] the paper prints no number.</sub>" in below
    assert "second" not in text
    assert "Clean" not in text


def test_an_indicator_leaves_a_star_at_its_own_number(results, result):
    """Of the paper's attack and of the adapted one, each at what it left, with a line below that says what it means."""
    own = [cell | {"violated": ["zero_gradients"] * (cell["attack"] == "pgd")} for cell in result["cells"]]
    worst = [cell | {"violated": ["loss_moved"]} for cell in result["worst_case"]]
    one_line, whole = (PAGE.format(f"made/up{more}") for more in (" one_line columns=PGD", " columns=PGD"))
    gradients = "zero gradients, more than 5 % of the attacked images have a gradient of exactly zero"
    loss = "loss moved, on more than 5 % of the images without success, the attacker's objective never rose"
    for cells, worst_case, stars, found in (
        (own, result["worst_case"], (" *", ""), [gradients]),
        (result["cells"], worst, ("", " *"), [loss]),
        (own, worst, (" *", " *"), [gradients, loss]),
        (result["cells"], result["worst_case"], ("", ""), []),
    ):
        made = content(table(SPEC), a=result | {"cells": cells, "worst_case": worst_case}, b=result)
        write_evidence(results / "made" / "up.json", made)
        short, long = (fill(page, results, "page.md").text for page in (one_line, whole))
        assert f"| first | 90.0 (60 to 98){stars[0]} |" in short
        assert f"|  | ours: slot_given | 90.0 ✓{stars[0]} |\n|  | adapted: worst case | 40.0{stars[1]} |" in long
        assert [words in long for words in (gradients, loss)] == [words in found for words in (gradients, loss)]
        assert ("a star: an indicator says" in long) == bool(found)
        assert (gradients in short, loss in short) == (stars[0] != "", False), "what is not shown has no star"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("made/up profil=gpu", "page.md: 'profil=gpu' in a marker is none of profile="),
        ("made/up rows=fist", "page.md: table made/up has no 'fist': it has copied, first"),
    ],
)
def test_mistakes_in_markers_are_sentences(what, message, results):
    with pytest.raises(ValueError, match=message):
        fill(PAGE.format(what), results, "page.md")


def test_a_marker_without_an_end_is_an_error(results):
    with pytest.raises(ValueError, match="page.md: .* has no '<!-- end of results -->'"):
        fill("<!-- results: made/up -->\nold\n", results, "page.md")


def test_the_documents_of_the_repository_are_fresh():
    found = documents.stale(ROOT, ROOT / "results")
    assert found == [], "python scripts/documents.py writes them"


def test_markers_name_tables_profiles_rows_and_columns_that_exist():
    seen = set()
    for path in documents.documents(ROOT):
        for line in path.read_text().splitlines():
            if line.startswith("<!-- results: "):
                marker = parse_marker(line[len("<!-- results: ") : -len(" -->")], path.name)
                if marker.name.startswith(("headlines", "picture/")):
                    continue
                seen.add(marker.name)
                assert marker.name in tables(), path
                assert marker.profile in load(marker.name).profiles, path
    assert len(seen) > 10


def test_every_method_has_a_page_that_shows_all_of_its_tables():
    for name in tables():
        method = name.split("/")[0]
        board = method == "leaderboard"
        page = ROOT / ("LEADERBOARD.md" if board else f"src/robustforge/defenses/{method}/README.md")
        text = page.read_text()
        assert board or text.count("## ") >= 4, page
        assert f"<!-- results: {name} " in text, f"{name} on {page}"


def test_headlines_are_cells_of_tables():
    for headline in read_headlines():
        spec = load(headline.table)
        assert headline.paper is not None
        adapted = headline.adapted_row or headline.row, headline.adapted_column or headline.column
        for place in ((headline.row, headline.column), adapted):
            assert any((cell.row, cell.column) == place for cell in spec.cells), headline


def test_a_picture_is_stale_when_its_numbers_are_others(tmp_path):
    picture, bars = tmp_path / "new" / "claims.svg", claims_figure.first_page(tmp_path)
    assert not claims_figure.is_drawn(picture, bars)
    claims_figure.draw(picture, bars)
    assert claims_figure.is_drawn(picture, bars)
    assert [numbers[1:] for numbers in bars.groups.values()] == [[None, None]] * 5, "nothing was run here"
    label = next(iter(bars.groups))
    assert not claims_figure.is_drawn(picture, replace(bars, groups={**bars.groups, label: [89.8, 70.0, 1.0]}))


def test_a_method_has_a_picture_once_its_table_was_run(spec, result, tmp_path, monkeypatch):
    one = Headline("made", "Made up", "accuracy", "made/up", "first", "PGD", {})
    monkeypatch.setattr(claims_figure, "read_headlines", lambda: [one])
    page = PAGE.format("picture/made")
    assert "was not run" in fill(page, tmp_path, "page.md").text
    write_evidence(tmp_path / "made" / "up.json", content(spec, a=result, b=result))
    bars = claims_figure.of_method("made", tmp_path)
    assert bars.groups == {"first": [89.97, 90.0, 40.0], "second": [89.97, 90.0, 40.0], "mean": [None, 90.0, 40.0]}
    assert "(../../../../docs/figures/made.svg)" in fill(page, tmp_path, "page.md").text


def test_a_leaderboard_has_a_picture_whose_best_row_is_the_first(spec, result, tmp_path, monkeypatch):
    page = PAGE.format("picture/leaderboard/up")
    assert "up -->\n\n<!-- end" in fill(page, tmp_path, "page.md").text, "its table says that it was not run"
    made = content(spec, a=result, b=result)
    numbers = {("none", "clean"): 99.0, ("none", "PGD"): 1.234, ("guarded", "clean"): 90.0, ("guarded", "PGD"): 70.0}
    one = next(cell for cell in made["cells"] if "ours" in cell)
    made["cells"] = [one | {"row": row, "column": column, "ours": value} for (row, column), value in numbers.items()]
    made["cells"].append({key: value for key, value in one.items() if key != "ours"} | {"row": "not run"})
    made["cells"][-2]["violated"] = ["unbounded_breaks"]
    write_evidence(tmp_path / "leaderboard" / "up.json", made)
    monkeypatch.setattr(claims_figure, "BOARD", ("clean", "FGSM", "PGD"))
    bars = claims_figure.of_board("leaderboard/up", tmp_path)
    assert list(bars.groups.items()) == [("guarded *", [90.0, None, 70.0]), ("none", [99.0, None, 1.23])]
    assert "(docs/figures/leaderboard_up.svg)" in fill(page, tmp_path, "page.md").text
    claims_figure.draw(tmp_path / "board.svg", bars)
    assert claims_figure.is_drawn(tmp_path / "board.svg", bars)
    assert not claims_figure.is_drawn(tmp_path / "board.svg", replace(bars, kinds=claims_figure.CLAIMED))


def test_leaderboards_have_the_columns_of_their_picture():
    for name in tables(["leaderboard/*"]):
        assert {cell.column for cell in load(name).cells} >= set(claims_figure.BOARD)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
