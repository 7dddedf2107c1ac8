"""Records made by hand, for the tests of everything that reads them."""

import numpy as np
import pytest

EPS = 9 / 255
BIG = 25 / 255


def make_cell(system, attack, surface, eps, held, *, index=None, accepted=None, norm="linf", seed=3):
    """Columns of one cell: ``held`` says on which samples the system was right."""
    held = np.asarray(held, dtype=bool)
    n = len(held)
    index = np.arange(n) if index is None else np.asarray(index)
    accepted = np.ones(n, dtype=bool) if accepted is None else np.asarray(accepted, dtype=bool)
    label = index % 10
    return {
        "system": [system] * n,
        "attack": [attack] * n,
        "surface": [surface] * n,
        "norm": [norm] * n,
        "eps": np.full(n, eps),
        "index": index,
        "label": label,
        "prediction": np.where(held, label, (label + 1) % 10),
        "success": ~held & accepted,
        "accepted": accepted,
        "risk": np.full(n, np.nan),
        "linf": np.full(n, eps),
        "l2": np.full(n, 2 * eps),
        "forwards": np.full(n, 10),
        "backwards": np.full(n, 5),
        "seed": np.full(n, seed),
    }


def join(*cells):
    return {name: np.concatenate([np.asarray(cell[name]) for cell in cells]) for name in cells[0]}


def held(n, right):
    return np.arange(n) < right


@pytest.fixture
def small():
    """Ten samples, two systems, numbers that can be worked out by hand."""
    return join(
        make_cell("undefended", "clean", "none", 0.0, held(10, 9)),
        make_cell("undefended", "pgd", "end_to_end", EPS, held(10, 2)),
        make_cell("memdef", "clean", "none", 0.0, [1, 1, 1, 1, 1, 1, 1, 1, 0, 1]),
        make_cell("memdef", "fgsm", "slot_given", EPS, [1, 1, 1, 1, 1, 1, 1, 0, 1, 1]),
        make_cell("memdef", "pgd", "slot_given", EPS, [1, 1, 1, 1, 1, 1, 0, 1, 1, 1]),
        make_cell("memdef", "pgd", "selector", EPS, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]),
        make_cell("memdef", "pgd", "slot_given", BIG, held(10, 5)),
    )


META = {"name": "demo", "seed": 3, "split": "test", "n_test": 10, "defense": "memdef", "norm": "linf", "eps": EPS}


@pytest.fixture
def meta():
    return dict(META)


@pytest.fixture
def large():
    """A thousand samples a cell: three systems, three attacks, two budgets."""
    cells = []
    for system, clean, drop in (("undefended", 930, 6.0), ("selector", 920, 1.0), ("memdef", 915, 0.6)):
        cells.append(make_cell(system, "clean", "none", 0.0, held(1000, clean)))
        for eps in (EPS, BIG):
            for k, attack in enumerate(("fgsm", "bim", "pgd")):
                for surface in ("slot_given", "selector") if system == "memdef" else ("end_to_end",):
                    lost = int((drop + (3 if surface == "selector" else 0)) * eps * 255 * (4 + k))
                    cells.append(make_cell(system, attack, surface, eps, held(1000, max(0, clean - lost))))
    return join(*cells)


def with_risk(cell, risk, rate=0.1, threshold=0.5):
    n = len(risk)
    more = {"risk": np.array(risk), "false_positive_rate": np.full(n, rate), "threshold": np.full(n, threshold)}
    return cell | more


@pytest.fixture
def detector():
    accepted = [1, 1, 1, 0, 1]
    clean = make_cell("det", "clean", "none", 0.0, [1, 1, 0, 1, 1], accepted=accepted)
    clean["linf"] = np.zeros(5)
    attacked = make_cell("det", "pgd", "end_to_end", EPS, [0, 0, 0, 1, 0], accepted=[0, 1, 1, 1, 0])
    attacked["linf"] = np.array([EPS, EPS, 0.0, EPS, EPS])
    return join(with_risk(clean, [0.1, 0.2, 0.4, 0.6, 0.3]), with_risk(attacked, [0.9, 0.35, 0.4, 0.05, 0.8]))
