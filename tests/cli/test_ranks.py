"""Two ranks give what one process gives, for every method: the same records from the same weights. Slow."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from robustforge.config.isolated import clean_environment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DEFENSES = sorted(path.stem for path in (ROOT / "conf" / "defense").glob("*.yaml"))
FEW = (
    "model=lenet", "dataset.limit_train=96", "dataset.batch_size=16", "attack=pgd", "attack.steps=2", "protocol=smoke",
    "debug=fast",
    "protocol.n_test=33", "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 2}}", "trainer.enable_progress_bar=false",
)  # fmt: skip
SMALL = {
    "adversarial_training": ["defense.robust.attack.steps=1"],
    "ape_gan": ["defense.generator.width=4", "defense.discriminator.width=4",
                "trainer.strategy=ddp_find_unused_parameters_true"],
    "cae": ["defense.denoiser.widths=[4,8]", "defense.denoiser.latent_channels=4"],
    "defense_gan": ["defense.generator.width=4", "defense.critic.width=4", "defense.search.restarts=2",
                    "defense.search.steps=3", "trainer.strategy=ddp_find_unused_parameters_true"],
    "defense_vae": ["defense.vae.width=4", "defense.train_attacks.pgd.steps=1"],
    "dfl_pcl": ["inner.steps=1"],
    "dynamic": ["defense.robust.attack.steps=2"],
    "gmvae": ["defense.width=0.125", "defense.detector.shared=true"],
    "memdef": ["selector=offline", "selector.attack.steps=1", "stack=short", "defense.memory_size=20"],
    "mrr": ["defense.n_defenders=2", "defense.input.enabled=true", "defense.input.atoms=8", "defense.input.batch=32",
            "defense.input.iterations=2", "dataset.limit_train=200", "defense.fusion.per_class=false"],
    "comdefend": ["defense.network.widths=[4,8]"],
    "pixel_defend": ["defense.pixelcnn.width=4", "defense.pixelcnn.blocks=1"],
    "pretrained": ["defense.network=${model}"],
    "puvae": ["defense.vae.width=4", "defense.vae.hidden=16", "defense.draws=2"],
}  # fmt: skip


def run(script, *arguments):
    environment = {**clean_environment(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def answers(folder):
    """(system, attack, surface, eps, index) -> (prediction, success); none of them twice."""
    table = pq.read_table(folder / "records.parquet").to_pydict()
    keys = list(zip(*(table[name] for name in ("system", "attack", "surface", "eps", "index")), strict=True))
    assert len(set(keys)) == len(keys), "a sample was recorded twice in a cell"
    return dict(zip(keys, zip(table["prediction"], table["success"], strict=True), strict=True))


@pytest.mark.parametrize("defense", DEFENSES)
def test_two_ranks_are_one_process(tmp_path, defense):
    """33 images: a sampler that pads would evaluate one of them twice. One process then evaluates what two trained."""
    arguments = (f"defense={defense}", *FEW, *SMALL.get(defense, []))
    pair = tmp_path / "pair"
    out = run("train.py", *arguments, "trainer=ddp_cpu", f"paths.output_dir={tmp_path}", f"hydra.run.dir={pair}")
    assert out.count("Everything is in") == 1, "every rank reports"
    assert out.count(": making ") == len(json.loads((pair / "result.json").read_text())["stages"]), "every rank logs"
    of_two = answers(pair)
    assert len({index for *_, index in of_two}) == 33
    alone = run("scripts/evaluate.py", f"run={pair}", *(item for item in FEW if item.startswith(("protocol", "attack"))),
                "overwrite=true", "progress=false")  # fmt: skip
    assert alone.count("Everything is in") == 1
    (folder,) = (pair / "evaluations").iterdir()
    of_one = answers(folder)
    assert set(of_one) == set(of_two)
    differ = [np.mean([of_one[key][which] != of_two[key][which] for key in of_one]) for which in (0, 1)]
    assert max(differ) <= 0.01, differ
