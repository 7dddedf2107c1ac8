"""One system under several attacks, made by hand: evidence that violates no indicator, and how to change it."""

import numpy as np
from recorded import BIG, EPS, make_cell

N = 100


def cell(attack, broken, *, eps=EPS, surface="end_to_end", check="", backwards=20, system="d", **trace):
    """One cell of which the first ``broken`` images are broken; the trace columns are constants or arrays."""
    made = make_cell(system, attack, surface, eps, np.arange(N) >= broken, norm="none" if attack == "clean" else "linf")
    full = {"zero_gradient": 0.0, "loss_gain": 1.0, "best_at": 0.5} | trace
    none = attack == "clean" or backwards == 0
    made |= {name: np.full(N, np.nan) if none else np.broadcast_to(value, N) for name, value in full.items()}
    return made | {"backwards": np.full(N, backwards), "check": [check] * N}


def clean(broken=5, **changed):
    return cell("clean", broken, surface="none", eps=0.0, backwards=0, **changed)


SOUND = (
    clean(), cell("noise", 5, backwards=0), cell("fgsm", 40, backwards=1), cell("pgd", 60), cell("square", 50, backwards=0),
    cell("pgd", 60, surface="transfer"), cell("pgd", 5, eps=0.0, check="identity", backwards=0),
    cell("pgd", N, eps=1.0, check="unbounded"), cell("pgd", 61, check="restarts"), cell("pgd", 61, check="steps"),
    cell("pgd", 90, eps=BIG),
)  # fmt: skip
