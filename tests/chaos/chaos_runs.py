"""Tiny runs of four methods, and what of them must not depend on accidents."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import chaos_children
import pyarrow.parquet as pq

FEW = (
    "model=lenet", "dataset.limit_train=96", "dataset.batch_size=32", "protocol.n_test=16", "attack.steps=2",
    "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 2}}", "defense.undefended_training.epochs=2",
    "dataset.eval_batch_size=32", "protocol=smoke", "trainer.enable_progress_bar=false",
    "store.resume_every=0",
)  # fmt: skip
METHODS = {
    "memdef": ("selector=offline", "stack=short", "defense.memory_size=20", "selector.training.epochs=2",
               "stack.settings.training.epochs=2", "selector.attack.steps=2"),
    "mrr": ("defense.n_defenders=2", "defense.input.enabled=true", "defense.input.atoms=8", "defense.input.batch=32",
            "defense.input.iterations=2", "defense.latent.training.epochs=1", "dataset.limit_train=200",
            "defense.fusion.per_class=false"),
    "gmvae": ("defense.width=0.125", "defense.detector.shared=true", "defense.training.epochs=2"),
    "adversarial_training": ("defense.training.epochs=2", "defense.robust.attack.steps=1"),
}  # fmt: skip
PROGRAM = multiprocessing.get_context("forkserver")


class Command:
    """``train.py`` on one method, all that it makes below ``root``."""

    def __init__(self, method, root):
        self.method, self.root = method, Path(root)
        self.log = self.root.parent / f"{self.root.name}.log"

    def start(self, name="run", **plan):
        few = [item for item in FEW if self.method != "adversarial_training" or "undefended" not in item]
        places = (f"paths.output_dir={self.root}", f"hydra.run.dir={self.root / name}")
        arguments = (f"defense={self.method}", *few, *METHODS[self.method], *places)
        process = PROGRAM.Process(
            target=chaos_children.child, args=(arguments, self.log, chaos_children.Plan(str(self.root), **plan))
        )
        process.start()
        return process

    def run(self, **plan):
        """Its exit code; minus the number of the signal that killed it."""
        process = self.start(**plan)
        process.join(300)
        assert process.exitcode is not None, "it hangs"
        return process.exitcode

    def said(self):
        text = self.log.read_text()
        self.log.write_text("")
        return text

    def state(self, name="run"):
        """What must not depend on accidents: the products, byte by byte, the records and the result's numbers."""
        store = self.root / "store"
        products = {
            path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in store.glob("*-*/*") if path.suffix in (".safetensors", ".npy")
        }  # fmt: skip
        cells = {path.name: str(pq.read_table(path).to_pydict()) for path in (store / "cells").glob("*.parquet")}
        result = json.loads((self.root / name / "result.json").read_text())
        numbers = [{key: value for key, value in cell.items() if key != "seconds"} for cell in result["cells"]]
        records = str(pq.read_table(self.root / name / "records.parquet").to_pydict())
        left = [path.name for path in store.rglob(".*.tmp*")] + [path.name for path in (store / ".partial").glob("*/*")]
        return {"products": products, "cells": cells, "numbers": numbers, "records": records, "left": left}
