"""A table's specification: loops and groups, the rule by which a row and a column make a cell, and mistakes."""

import pytest
from made_up import table

from robustforge.papers.loops import expand
from robustforge.papers.table_file import parse_table

SMALL = {
    "title": "Made-up table",
    "paper_table": "memdef_table1",
    "note": "Belongs to both.",
    "overrides": ["shared=1"],
    "profiles": {"cpu": {"note": "small\n", "overrides": ["size=1"]}, "paper": {"note": "large", "overrides": []}},
    "runs": {"n{n}": {"for": {"n": [1, 4]}, "overrides": ["defenders={n}"], "cpu": ["last={n}"]}},
    "rows": [
        {"system": "mrr", "attack": "pgd", "each": [
            {"for": {"n": [1, 4]}, "label": "N = {n}", "run": "n{n}"},
            {"label": "copied", "paper_row": "PixelDefend"},
        ]},
    ],
    "columns": [{"label": "clean", "attack": "clean"}, {"for": {"eps": [0.1, 0.25]}, "label": "{eps:.2f}", "eps": "{eps}"}],
}  # fmt: skip


def test_a_loop_makes_runs_and_cells():
    spec = parse_table(SMALL, "small.yaml")
    assert list(spec.runs) == ["n1", "n4"]
    assert spec.overrides("n4", "cpu") == ["defenders=4", "shared=1", "size=1", "last=4"]
    assert spec.overrides("n4", "paper") == ["defenders=4", "shared=1"]
    apart = parse_table({**SMALL, "runs": {"n{n}": {**SMALL["runs"]["n{n}"], "apart": True}}}, "small.yaml")
    assert apart.overrides("n4", "cpu") == ["defenders=4", "last=4"]
    assert [profile.note for profile in spec.profiles.values()] == ["small Belongs to both.", "large Belongs to both."]
    cells = {(cell.row, cell.column): cell for cell in spec.cells}
    assert list(cells)[:3] == [("N = 1", "clean"), ("N = 1", "0.10"), ("N = 1", "0.25")]
    assert (cells["N = 4", "clean"].attack, cells["N = 4", "0.25"].attack) == ("clean", "pgd"), "the column decides"
    assert (cells["N = 4", "0.25"].run, cells["N = 4", "0.25"].eps) == (("n4",), 0.25)
    assert cells["copied", "0.10"].run == ()


def test_a_profile_may_make_some_of_the_runs_and_state_its_time():
    gpu = {"note": "one GPU", "overrides": ["size=2"], "runs": ["n4"], "minutes": 8}
    spec = parse_table({**SMALL, "profiles": {**SMALL["profiles"], "gpu": gpu}}, "small.yaml")
    assert (spec.runs_of("cpu"), spec.runs_of("gpu")) == (["n1", "n4"], ["n4"])
    assert (spec.profiles["gpu"].minutes, spec.profiles["cpu"].minutes) == (8, None)
    assert spec.overrides("n4", "gpu") == ["defenders=4", "shared=1", "size=2"]


def test_a_runs_own_setting_is_not_replaced_unseen():
    def sizes(**run):
        spec = parse_table({**SMALL, "runs": {**SMALL["runs"], "own": run}}, "small.yaml")
        return [one for one in spec.overrides("own", "cpu") if one.startswith("size")]

    told = "Run 'own' sets size=3, and profile 'cpu' replaces it with 1: write it under 'cpu' of the run"
    with pytest.raises(ValueError, match=told):
        sizes(overrides=["size=3"])
    assert sizes(overrides=["size=3"], cpu=["size=3"])[-1] == "size=3"
    assert sizes(overrides=["size=3"], apart=True) == ["size=3"]
    assert set(sizes(overrides=["size=1"])) == {"size=1"}


def test_loops_are_nested_and_their_variables_may_have_entries():
    given = {
        "group": {
            "for": {"data": [{"id": "mnist", "name": "MNIST"}, {"id": "svhn", "name": "SVHN"}], "n": [1, 2]},
            "shared": "{data.name}",
            "each": {
                "{data.id}_{n}": {"for": {"k": ["a"]}, "list": [["{n}", "{k}"], "{n}"]},
                "own{data.id}{n}": {"shared": 0},
            },
        },
        "plain": "{left} {as: it is}",
    }
    made = expand(given)
    assert made["svhn_2"] == {"shared": "SVHN", "list": [[2, "a"], 2]}
    assert made["ownmnist1"] == {"shared": 0}
    assert list(made) == [
        "mnist_1",
        "ownmnist1",
        "mnist_2",
        "ownmnist2",
        "svhn_1",
        "ownsvhn1",
        "svhn_2",
        "ownsvhn2",
        "plain",
    ]
    assert made["plain"] == "{left} {as: it is}"


def test_a_list_in_a_list_adds_its_items():
    given = [{"for": {"more": [[], ["b", "c"]]}, "all": ["a", "{more}"]}]
    assert expand(given) == [{"all": ["a"]}, {"all": ["a", "b", "c"]}]
    assert expand([{"for": {"n": [1, 2]}, "each": ["x{n}", "y{n}"]}]) == ["x1", "y1", "x2", "y2"]


def test_mistakes_in_loops_are_named():
    with pytest.raises(ValueError, match="no loop variable 'data.nam' .* did you mean 'data.name'"):
        expand({"{data.nam}": {"for": {"data": [{"name": "MNIST"}]}}})
    with pytest.raises(ValueError, match="'same' is there twice"):
        expand({"same": {"for": {"n": [1, 2]}}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colums": []}, "The file has an unknown key 'colums': did you mean 'columns'?"),
        ({"rows": [{"label": "a", "runs": "n1"}]}, "'runs': did you mean 'run'?"),
        (
            {"runs": {"n1": {"override": []}, "n4": {}}},
            "Run 'n1' has an unknown key 'override': did you mean 'overrides'?",
        ),
        ({"profiles": {"cpu": {"note": "a", "overrides": [], "notes": "b"}}}, "'notes': did you mean 'note'?"),
        ({"profiles": {"cpu": {"overrides": []}}}, "Profile 'cpu' lacks 'note': add it."),
        ({"profiles": {"gpus": {"note": "a", "overrides": []}}}, "There is no profile 'gpus': did you mean 'gpu'?"),
        (
            {"profiles": {"cpu": {"note": "a", "overrides": [], "runs": ["n5"]}}},
            "no run 'n5': choose one of n1, n4.",
        ),
        (
            {"rows": [{"label": "a", "run": "n11", "system": "mrr", "attack": "pgd"}]},
            "no run 'n11': did you mean 'n1'?",
        ),
        ({"rows": [{"label": "a", "run": "n1", "attack": "pgd"}]}, "'a', 'clean' has a run: give its system"),
        ({"rows": [{"label": "a", "metric": "eror"}]}, "no metric 'eror': did you mean 'error'?"),
        ({"rows": [{"run": "n1"}]}, "{'run': 'n1'}: give a mapping with a label."),
        ({"rows": ["N = 1"]}, "'N = 1': give a mapping with a label."),
    ],
)
def test_mistakes_name_the_file_and_the_near_miss(changes, message):
    with pytest.raises(ValueError, match="^small.yaml: ") as stop:
        parse_table({**SMALL, **changes}, "small.yaml")
    assert message in str(stop.value)


def test_runs_that_differ_in_their_seed():
    row = {"label": "mean", "run": ["a", "b"], "system": "d", "attack": "clean"}
    assert table({"paper_table": "memdef_table1", "rows": [row], "columns": [{"label": "c"}]}).cells[0].run == (
        "a",
        "b",
    )
