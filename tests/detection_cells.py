"""A detector under several attacks, made by hand."""

import numpy as np
from recorded import join, make_cell

from robustforge.records.table import read_records

N = 10
CLEAN_RISK = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.15, 0.25, 0.35, 0.45, 0.9])


def cell(attack, held, risk, *, eps=0.3, norm="linf", accepted=None, l2=1.0, surface="victim"):
    made = make_cell("mrr", attack, "none" if attack == "clean" else surface, 0.0 if attack == "clean" else eps, held,
                     norm="none" if attack == "clean" else norm, accepted=accepted)  # fmt: skip
    return made | {"risk": np.asarray(risk, dtype=float), "l2": np.broadcast_to(np.asarray(l2, float), N).copy()}


def records(*attacked):
    return read_records(join(cell("clean", [1] * 9 + [0], CLEAN_RISK), *attacked))


FGS = cell("fgsm", [0, 0, 0, 1, 1, 1, 1, 1, 1, 0], [0.8, 0.6, 0.22, 0, 0, 0, 0, 0, 0, 0.99],
           accepted=[0, 0, 1, 1, 1, 1, 1, 1, 1, 0])  # fmt: skip
MORE = cell("fgsm", [0] * 10, [0.7] * 10, eps=0.5, accepted=[0] * 10)
BIM = cell("bim", [0, 1, 1, 1, 1, 1, 1, 1, 1, 1], [0.3] * 10)
CW = cell("cw", [0] * 6 + [1] * 4, [0.2] * 10, norm="l2", eps=28.0, l2=[1, 2, 3, 4, 5, 6, 28, 28, 28, 28])
ALONE = cell("cw", [0] * 9 + [1], [np.nan] * 10, norm="l2", eps=28.0, l2=[1, 1, 2, 2, 2, 2, 3, 3, 3, 28])
