"""The final table fits 100 columns and leads with the verdict; the run ends with what the defense adds."""

import numpy as np
import pytest
from recorded import BIG, EPS, held, join, make_cell

from robustforge.reporting.headline import closing, title
from robustforge.reporting.result import make_result
from robustforge.reporting.tables import WIDTH, render_run, terminal

META = {"name": "memdef_digits", "seed": 0, "n_test": 200, "defense": "memdef", "norm": "linf", "eps": EPS}


def lines(result):
    console = terminal()
    with console.capture() as capture:
        console.print(render_run(result))
    return capture.get().splitlines()


@pytest.fixture
def result():
    cells = [make_cell(name, "clean", "none", 0.0, held(200, 198)) for name in ("undefended", "selector", "memdef")]
    kept = {"undefended": 37, "selector": 158, "memdef": 154}
    cells += [make_cell(name, "pgd", "end_to_end", EPS, held(200, right)) for name, right in kept.items()]
    return make_result(join(*cells), META)


def test_the_table_leads_with_the_verdict(result):
    first, second = lines(result)[:2]
    assert [first.strip(), second.strip()] == title(result).splitlines()
    assert first.startswith("memdef_digits: 77.0 ± 5.8 % at L∞ 9/255")
    assert "upper bound" in second
    words = " ".join(" ".join(lines(result)).split())
    assert "Row selector: the defense's own selector, which is plain adversarial training." in words


def test_a_run_ends_with_what_the_defense_adds(result):
    said = closing(result)
    assert said.startswith(
        "What memdef adds: 77.0 % in the worst case at L∞ 9/255, against 79.0 % of the defense's own selector"
    )
    assert "plain adversarial training: -2.0 points [" in said
    assert said.index("selector") < said.index("undefended"), "the row that comes closest is the one to beat"
    assert "18.5 % of the undefended classifier: +58.5 points" in said


def test_nothing_is_said_where_nothing_is_compared(meta):
    assert closing(make_result(make_cell("memdef", "clean", "none", 0.0, held(10, 9)), meta)) == ""
    alone = join(
        make_cell("memdef", "clean", "none", 0.0, held(10, 9)), make_cell("memdef", "pgd", "x", EPS, held(10, 5))
    )
    assert closing(make_result(alone, meta)) == ""


@pytest.mark.parametrize("systems", [1, 3, 9])
@pytest.mark.parametrize("attacks", [1, 5, 20])
def test_every_table_fits(systems, attacks):
    names = [f"a_rather_long_system_{k}" for k in range(systems)]
    cells = [
        make_cell(name, f"projected_gradient_{k}", "detector_aware", eps, np.ones(20))
        for name in names for k in range(attacks) for eps in (EPS, BIG)
    ]  # fmt: skip
    cells += [make_cell(name, "clean", "none", 0.0, np.ones(20)) for name in names]
    found = make_result(join(*cells), {**META, "defense": names[-1]})
    shown = lines(found)
    assert max(map(len, shown)) <= WIDTH
