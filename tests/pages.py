"""Run folders on disk for the tests of the page, made by hand and in a moment."""

import numpy as np
from drawn import write_metrics
from recorded import BIG, EPS, held, join, make_cell, with_risk

from robustforge.files import write_json
from robustforge.records.schema import read_table, write_table
from robustforge.reporting.result import make_result

IMAGES = 40
EVIL = '<script>window.evil = 1</script>"><img src=x onerror="window.evil = 1">$x^$ --> {{ 7 * 6 }}'


def columns(lost=0, risk=True):
    """Two systems, two budgets; the defense has a risk."""
    cells = [
        make_cell("undefended", "clean", "none", 0.0, held(IMAGES, 38)),
        make_cell("undefended", "pgd", "end_to_end", EPS, held(IMAGES, 4)),
        make_cell("undefended", "pgd", "end_to_end", BIG, held(IMAGES, 1)),
    ]
    mine = [make_cell("memdef", "clean", "none", 0.0, held(IMAGES, 37))]
    for eps, kept in ((EPS, 30), (BIG, 18)):
        mine.append(make_cell("memdef", "pgd", "end_to_end", eps, held(IMAGES, kept - lost)))
        mine.append(make_cell("memdef", "fgsm", "selector", eps, held(IMAGES, kept + 3)))
        mine.append(make_cell("memdef", "square", "end_to_end", eps, np.arange(IMAGES) % 8 != 3))
    mine[0]["linf"] = np.zeros(IMAGES)
    for square in (mine[3], mine[6]):
        square["backwards"] = np.zeros(IMAGES, dtype=int)
    if risk:
        draw = np.random.default_rng(0)
        cells = [with_risk(cell, np.full(IMAGES, np.nan), np.nan, np.nan) for cell in cells]
        mine = [with_risk(c, draw.random(IMAGES) + (c["attack"][0] != "clean"), 0.05, 1.6) for c in mine]
    return join(*cells, *mine)


def write_run(folder, name="demo", lost=0, seed=3, overrides=None, strict=True, said=None, risk=True):
    """A run folder with everything that a run leaves; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    table = read_table(columns(lost, risk))
    write_table(table, folder / "records.parquet")
    meta = {"name": name, "seed": seed, "split": "test", "n_test": IMAGES, "defense": "memdef", "protocol": "standard"}
    meta |= {"norm": "linf", "eps": EPS, "rate": 0.05 if risk else None, "strict": strict, "seconds": 12.5}
    meta |= {"calibration_images": 100, "versions": {"torch": "2.15"}, "code": {"commit": "abc", "modified": False}}
    meta |= {
        "stages": [{"name": "stack", "key": "k", "reused": False, "seconds": 7.0}],
        "diagnostics": {"agreement": 1.0},
    }
    result = make_result(table, meta)
    write_json(folder / "result.json", result if said is None else said(result))
    write_json(folder / "environment.json", {"python": "3.11", "data": "same"})
    write_metrics(folder / "metrics" / "selector" / "version_0", range(4), 300.0)
    draw = np.random.default_rng(1)
    clean = draw.random((5, 1, 8, 8), dtype=np.float32)
    told = {"label": [1, 2, 3, 4, 5], "prediction": [1, 0, 3, 0, 5], "clean_prediction": [1, 2, 3, 4, 0]}
    arrays = {
        "clean": clean,
        "attacked": np.clip(clean + 0.03, 0, 1),
        "rebuilt": clean,
        "risk": [0.1, 0.2, 0.3, 9.0, 0.1],
    }
    extra = {"eps": EPS, "norm": "linf", "worst": 2, "index": [7, 8, 9, 10, 11], "title": "pgd on end_to_end"}
    np.savez(folder / "gallery.npz", kind="gallery", **told, **arrays, **extra)
    if overrides is not None:
        write_json(folder / "overrides.json", overrides)
    return folder


def write_sweep(folder):
    """Three memory sizes by two seeds."""
    for size, lost in ((20, 9), (50, 4), (100, 0)):
        for seed in (0, 1):
            given = [f"defense.memory_size={size}", f"seed={seed}", "paths.output_dir=/somewhere"]
            write_run(folder / f"{size}-{seed}", lost=lost + seed, seed=seed, overrides=given, strict=False, risk=False)
    return folder


def evil(result):
    """Every text of a result replaced by an attempt to run something."""
    if isinstance(result, dict):
        return {key: evil(value) for key, value in result.items()} | ({"schema": 1} if "schema" in result else {})
    if isinstance(result, list):
        return [evil(value) for value in result]
    return (
        result
        if result in ("clean", "worst_case", "memdef", "linf", "unreliable") or not isinstance(result, str)
        else EVIL
    )
