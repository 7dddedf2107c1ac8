"""Every option of every group in a real, tiny run: one record a sample and cell, in the ball, summed up in result.json.

A new YAML is in here the moment it exists: the cases are made from the files of conf/.
"""

import json
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from robustforge.api.runs import load_run
from robustforge.cli import pipeline
from robustforge.cli.export import export
from robustforge.config.instantiate import build
from robustforge.types import DefenseOutput, Threat, UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
N = 8  # test images of debug=fast
SHORT = "attack.steps=2"  # of the main attack, PGD, which also replaces the protocol's own PGD
BIG = {"resnet18", "resnet34", "resnet50", "vgg16", "wide_resnet28_10"}
LIGHT = ("defense=none", "model=lenet", "protocol.suites.all.attacks.bim.steps=2")


EXPORT = {
    "to": None, "evaluation": None, "push": None, "private": True, "trust": [], "dataset": {"path": None},
    "paths": {"store_dir": None, "data_dir": None},
}  # fmt: skip


def names(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


DEFENSES = names("defense")


def cells(records):
    columns = {name: records.column(name).to_numpy(zero_copy_only=False) for name in records.column_names}
    found = defaultdict(list)
    keys = zip(*(columns[name] for name in ("system", "attack", "surface", "norm", "eps")), strict=True)
    for row, key in enumerate(keys):
        found[key].append(row)
    return columns, found


def same(one, two, without=()):
    """Whether two tables of records agree; the risk of a defense without one is NaN, which equals NaN here."""
    assert one.column_names == two.column_names
    pairs = [
        (one.column(name).to_numpy(), two.column(name).to_numpy()) for name in one.column_names if name not in without
    ]
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def check(run, n=N):
    """One record a sample and cell; budgets kept; result.json agrees with the records."""
    columns, found = cells(run.records)
    images = np.sort(np.unique(columns["index"]))
    assert len(images) == n
    for key, rows in found.items():
        assert np.array_equal(columns["index"][rows], images), f"{key} has not each sample exactly once"
        distance = columns["linf" if key[3] == "none" else key[3]][rows]
        assert (distance <= key[4] + 1e-5).all(), f"{key} left its budget"
        clean = np.asarray(columns["label"])[rows] == np.asarray(columns["prediction"])[rows]
        assert np.array_equal(columns["success"][rows], ~clean & columns["accepted"][rows])
    attacked = {key for key in found if key[1] != "clean"}
    assert len(found) - len(attacked) == len({key[0] for key in found}), "one clean cell a system"
    told = {(c["system"], c["attack"], c["surface"], c["norm"], round(c["eps"], 5)): c for c in run.result["cells"]}
    assert set(told) == {(*key[:4], round(key[4], 5)) for key in found}
    for key, rows in found.items():
        cell = told[(*key[:4], round(key[4], 5))]
        assert cell["n"] == n
        if key[1] != "clean":
            assert cell["accuracy"] == pytest.approx(100 * np.mean(~columns["success"][rows]))
    assert run.result["objective"] == run.objective
    return found


# ---- what is true of each defense -----------------------------------------------------------------------------------


def tiny(defense):
    denoiser = ["defense.denoiser.widths=[4,8]", "defense.denoiser.latent_channels=4"]
    extra = {
        "ape_gan": ["defense.generator.width=4", "defense.discriminator.width=4"],
        "adversarial_training": ["defense.robust.attack.steps=1"],
        "dfl_pcl": ["inner.steps=1"],
        "dynamic": ["defense.robust.attack.steps=2"],
        "cae": denoiser,
        "puvae": ["defense.vae.width=4", "defense.vae.hidden=16", "defense.draws=2"],
        "defense_gan": ["defense.generator.width=4", "defense.critic.width=4", "defense.search.restarts=2",
                        "defense.search.steps=3"],
        "defense_vae": ["defense.vae.width=4", "defense.train_attacks.pgd.steps=1"],
        "pixel_defend": ["defense.pixelcnn.width=4", "defense.pixelcnn.blocks=1"],
        "comdefend": ["defense.network.widths=[4,8]"],
        "gmvae": ["defense.width=0.25"],
        "pretrained": ["defense.network=${model}"],
        "mrr": ["defense.n_defenders=2", "defense.input.enabled=true", "defense.input.atoms=8",
                "defense.input.iterations=2", "defense.input.batch=32", "dataset.limit_train=200"],
    }.get(defense, [])  # fmt: skip
    return (f"defense={defense}", "model=lenet", SHORT, "protocol.suites.all.attacks.bim.steps=2", *extra)


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("defense", DEFENSES)
def test_defense_keeps_its_contract(train_run, tmp_path, defense, monkeypatch):
    jobs = []
    assemble = pipeline.assemble
    monkeypatch.setattr(pipeline, "assemble", lambda cfg: jobs.append(assemble(cfg)) or jobs[-1])
    run = train_run(*tiny(defense))
    found = check(run)
    job = jobs[0]

    # the row is named after the file; every surface it names was attacked
    assert run.result["defense"] == job.name == defense
    unaimed = {key for key, surface in job.defense.surfaces().items() if not surface.aimed}
    assert {key[2] for key in found if key[0] == defense and key[1] == "pgd"} == unaimed
    assert "end_to_end" in job.defense.surfaces()

    # forward, as trained: logits (B, K), risk (B,) and purified (B, C, H, W) where there are any
    x = job.data.test.images[:5].float() / 255
    output = job.defense(x)
    assert isinstance(output, DefenseOutput)
    assert output.logits.shape == (5, job.data.num_classes)
    assert output.logits.dtype == torch.float32
    assert output.logits.isfinite().all()
    assert output.risk is None or (output.risk.shape == (5,) and output.risk.dtype == torch.float32)
    assert output.purified is None or output.purified.shape == x.shape
    assert torch.equal(output.logits, job.defense(x).logits), "asked twice, answered twice alike"
    assert not any(module.training for module in job.defense.modules())
    assert not any(p.requires_grad for p in job.defense.parameters())

    # each surface is differentiable, or says so by an honest zero; the system's answer does not need the label
    for surface in job.defense.surfaces().values():
        leaf = x.clone().requires_grad_(True)
        views = surface.attacker_logits(leaf, torch.zeros(5, dtype=torch.int64))
        assert all(view.shape == (5, job.data.num_classes) for view in views)
        assert len(views) == len(surface.weights)
        (gradient,) = torch.autograd.grad(sum(view.sum() for view in views), leaf, allow_unused=False)
        assert gradient.isfinite().all()

    # what lies in the store is what the defense holds
    stages = {stage["name"]: stage for stage in run.result["stages"]}
    assert not any(stage["reused"] for stage in stages.values())
    assert list(stages) == [stage.name for stage in job.defense.stages()]
    state = job.defense.state_dict()
    stored = 0
    for stage in stages.values():
        folder = tmp_path / "store" / f"{stage['name']}-{stage['key'][:16]}"
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["key"] == stage["key"]
        if (folder / "weights.safetensors").exists():
            for name, value in load_file(folder / "weights.safetensors").items():
                assert torch.equal(value, state[name].cpu()), name
                stored += 1
        assert {path.name for path in folder.iterdir()} <= {"manifest.json", "weights.safetensors", "images.npy"}
    assert bool(stored) == bool(job.defense.stages())

    # exported, it comes back without its store and its data, and answers the same
    folder = export(OmegaConf.create({"run": str(run.folder), **EXPORT}))
    text = "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors")
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text
    monkeypatch.setattr(job.data.__class__, "setup", None)
    loaded = load_run(folder)
    monkeypatch.undo()
    assert torch.equal(loaded(x).logits, output.logits)
    assert output.risk is None or torch.equal(loaded(x).risk, output.risk)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())

    # the same again in another store: the same records. In the same store: nothing is trained
    without = (*tiny(defense), "+protocol.pictures=false")
    again = train_run(*without, f"paths.store_dir={tmp_path / 'elsewhere'}", name="again")
    assert same(again.records, run.records)
    assert not any(stage["reused"] for stage in again.result["stages"])
    third = train_run(*without, name="third")
    assert all(stage["reused"] for stage in third.result["stages"])
    assert same(third.records, run.records)


@pytest.mark.usefixtures("quiet_figures")
def test_another_seed_trains_other_weights(train_run):
    one = train_run(*LIGHT, SHORT)
    two = train_run(*LIGHT, SHORT, "seed=1", name="two")
    assert one.result["stages"][0]["key"] != two.result["stages"][0]["key"]
    assert not same(one.records, two.records, without=["seed"])


# ---- every option of the small groups, several at once --------------------------------------------------------------


def covering(**groups):
    """As few runs as there are options in the largest group, so that each option of each group is in one."""
    length = max(len(values) for values in groups.values())
    return [tuple(f"{key}={values[k % len(values)]}" for key, values in groups.items()) for k in range(length)]


SMALL = covering(
    model=[name for name in names("model") if name not in {*BIG, "own"}],  # test_given.py has that
    optimizer=names("optimizer"),
    scheduler=names("scheduler"),
    threat=names("threat"),
    attack=[*names("attack"), "torchattacks/APGD", "torchattacks/FGSM", "torchattacks/Square"],
    callbacks=names("callbacks"),
)


def shortened(attack, path):
    """Overrides that make an attack, or each attack it is composed of, as short as it can be."""
    if "attacks" in attack:
        return [item for key, one in attack.attacks.items() for item in shortened(one, f"{path}.attacks.{key}")]
    least = {"steps": 2, "n_queries": 3, "search_steps": 2, "n_target_classes": 1, "classes": 1, "queries": 20}
    least["skip_target_classes"] = 0
    return [f"{path}.{key}={value}" for key, value in least.items() if isinstance(attack.get(key), int)]


NORMS = {name: OmegaConf.load(CONF / "threat" / f"{name}.yaml").get("norm", "linf") for name in names("threat")}


def fitting(attack, case):
    """The case, with the first threat from its own on in whose norm its attack searches."""
    options = names("threat")
    own = options.index(case[3].partition("=")[2])
    for threat in options[own:] + options[:own]:
        try:
            attack.fits((1, 28, 28), 10, Threat(NORMS[threat], 1))
        except UserError:
            continue
        return (*case[:3], f"threat={threat}", *case[4:])
    raise AssertionError(f"{case[4]} knows none of the norms of conf/threat")


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.filterwarnings("ignore:torchattacks.*:UserWarning", "ignore:.*dlr is not defined.*:UserWarning")
@pytest.mark.parametrize("case", SMALL, ids=" ".join)
def test_small_options_run(train_run, compose, case):
    composed = compose(case[4]).attack
    case = fitting(build(composed), case)
    attack = case[4].partition("=")[2]
    steps = shortened(composed, "attack")
    # Square takes 5,000 queries by default
    steps += ["+attack.options.n_queries=3"] if attack.endswith("Square") else []
    # inductor takes minutes for what one batch never pays back
    steps += ["callbacks.compile.backend=eager"] if "callbacks=compile" in case else []
    bar = "trainer.enable_progress_bar=true"
    run = train_run(
        "defense=none", *case, *steps, bar, "protocol.suites.all.attacks={bim: {steps: 2}, pgd: {steps: 2}}"
    )
    found = check(run)
    # without an attack of its own there is nothing more than the suite
    own = {"clean", "fgsm", "bim", "pgd"} | ({run.cfg.attack.get("name", attack)} - {"none"})
    assert {key[1] for key in found} == own
    assert run.result["objective_of"]["norm"] == run.cfg.threat.norm


@pytest.fixture
def rgb(tmp_path):
    """Overrides for a few generated 3 x 32 x 32 images of one's own."""
    data = np.random.default_rng(0)
    counts = {"x_train": 40, "x_test": N}
    arrays = {k: data.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8) for k, n in counts.items()}
    arrays |= {k.replace("x", "y"): np.arange(n) % 4 for k, n in counts.items()}
    np.savez(tmp_path / "tiny.npz", **arrays)
    return (
        "dataset=npz", f"dataset.path={tmp_path / 'tiny.npz'}", "dataset.shape=[3,32,32]", "dataset.num_classes=4",
        "dataset.batch_size=2", "defense=none", "attack=fgsm", "protocol.n_test=4",
        "protocol.suites.all.attacks={bim: {steps: 1}, pgd: {steps: 1}}",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("model", sorted(BIG))
def test_big_backbones_run(train_run, rgb, model):
    extra = ["model.pretrained=false"] if model == "vgg16" else []
    run = train_run(*rgb, f"model={model}", *extra, "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.5,0.5,0.5]")
    check(run, 4)


@pytest.mark.usefixtures("quiet_figures")
def test_rgb_arrays_of_ones_own_run_as_documented(train_run, rgb):
    check(train_run(*rgb, "model=lenet"), 4)


# ---- Memory Defense's groups ----------------------------------------------------------------------------------------

QUICK = (
    "defense=memdef", "model=lenet", "defense.memory_size=20", SHORT, "protocol.suites.all.attacks.bim.steps=2",
)  # fmt: skip


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("case", covering(selector=names("selector"), stack=names("stack")), ids=" ".join)
def test_selectors_and_stacks_run(train_run, tmp_path, case):
    run = train_run(*QUICK, *case)
    found = check(run)
    kind = case[0].partition("=")[2]
    stages = [stage["name"] for stage in run.result["stages"]]
    made = {"clean": [], "offline": ["adversarial_set", "selector"]}.get(kind, ["selector"])
    assert stages == ["undefended", *made, "stack"]
    assert {key[0] for key in found} == {"undefended", "memdef"} | ({"selector"} if made else set())
    if kind == "offline":
        (images,) = (tmp_path / "store").glob("adversarial_set-*/images.npy")
        stored = np.load(images)
        assert stored.shape == (64, 1, 28, 28)
        assert 0 <= stored.min() <= stored.max() <= 1
        assert stored.any(axis=(1, 2, 3)).all(), "an image that was never crafted"


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("variant", ["classifier", "no_memory", "selector", "oracle_slot", "random_slot"])
def test_variants_run_under_the_ablations_protocol(train_run, variant):
    run = train_run(*QUICK[:3], f"defense.variant={variant}", "selector=clean", "stack=short",
                    "protocol=paper/memdef_ablation",
                    "protocol.suites.adapted.attacks.adapted.steps=2")  # fmt: skip
    found = check(run)
    assert ("memdef", "fgsm", "end_to_end") in {key[:3] for key in found}
    # the result's default budget is the protocol's, not the run's own
    assert run.result["objective_of"]["eps"] == pytest.approx(25 / 255)


@pytest.mark.usefixtures("quiet_figures")
def test_the_tables_protocol_runs(train_run):
    steps = ["paper.attacks.bim", "paper.attacks.pgd", "adapted.attacks.adapted", "slots.attacks.slots",
             "unbounded.attacks.cw_0", "unbounded.attacks.cw_50"]  # fmt: skip
    run = train_run(*QUICK[:3], "selector=clean", "stack=short", "protocol=paper/memdef",
                    *(f"protocol.suites.{step}.steps=2" for step in steps))  # fmt: skip
    found = check(run)
    assert {round(key[4] * 255) for key in found if key[3] != "l2"} == {0, 9, 25}
    assert {key[1:5] for key in found if key[0] == "memdef" and key[3] == "l2"} == {
        (attack, surface, "l2", 56.0) for attack in ("cw_0", "cw_50") for surface in ("slot_given", "selector")
    }
    assert {key[2] for key in found if key[:2] == ("memdef", "bim")} == {"slot_given", "selector", "soft_slot"}
    assert {key[2] for key in found if key[:2] == ("memdef", "adapted_pgd")} == {"selector", "soft_slot", "end_to_end"}


@pytest.mark.usefixtures("quiet_figures")
def test_a_false_positive_rate_rejects_and_counts(train_run):
    run = train_run(*QUICK, "selector=clean", "stack=short", "protocol.false_positive_rate=0.3",
                    "dataset.limit_train=200", "protocol.n_test=64")  # fmt: skip
    columns, found = cells(run.records)
    clean = next(rows for key, rows in found.items() if key[:2] == ("memdef", "clean"))
    rejected = 1 - np.mean(columns["accepted"][clean])
    assert 0.05 < rejected < 0.6
    undefended = next(rows for key, rows in found.items() if key[:2] == ("undefended", "clean"))
    assert columns["accepted"][undefended].all(), "a classifier without a risk accepts everything"
    check(run, 64)


# ---- DFL + PCL's groups ---------------------------------------------------------------------------------------------

DFL = ("defense=dfl_pcl", "model=lenet", "protocol.suites.all.attacks={fgsm: {}, pgd: {steps: 1}}", "attack.steps=1")


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("case", covering(inner=names("inner"), feature_loss=names("feature_loss")), ids=" ".join)
def test_inner_attacks_and_feature_losses_run(train_run, case):
    found = check(train_run(*DFL, *case, "defense.average=0.9", "defense.dfl_channels=4"))
    assert {key[0] for key in found} == {"undefended", "dfl_pcl"}
    assert ("dfl_pcl", "pgd", "centroids") in {key[:3] for key in found}


@pytest.mark.usefixtures("quiet_figures")
def test_the_ablations_and_the_tables_protocol_run(train_run):
    run = train_run(*DFL[:2], "defense.dfl=false", "defense.feature_loss=null", "defense.warm_start=true",
                    "inner.steps=1", "protocol=paper/dfl_pcl", "protocol.suites.adapted.attacks.margin.steps=2",
                    "protocol.suites.adapted.attacks.cross_entropy.steps=2")  # fmt: skip
    found = {key[:3] for key in check(run)}
    assert {("dfl_pcl", "cw_pgd", "end_to_end"), ("dfl_pcl", "adapted_cw_pgd", "multi_layer")} <= found
    assert "centroids" not in {key[2] for key in found}


# ---- the purifiers' options -----------------------------------------------------------------------------------------

ONE_STEP = ("protocol.suites.all.attacks={fgsm: {}, pgd: {steps: 1}, bim: {steps: 1}}", "attack.steps=1")


@pytest.mark.usefixtures("quiet_figures")
def test_a_denoiser_of_two_attacks_with_noise_at_inference_runs(train_run):
    run = train_run(*tiny("cae")[:2], *tiny("cae")[-2:], *ONE_STEP, "defense.infer_noise=true", "defense.draws=2",
                    "defense.mix_clean=0.5", "defense.denoiser.skips=concat",
                    "+attack@defense.train_attacks.second=rfgsm", "+defense.train_budgets.second=0.05")  # fmt: skip
    found = check(run)
    surfaces = {key[2] for key in found if key[:2] == ("cae", "pgd")}
    assert surfaces == {"end_to_end", "transfer", "bpda", "eot", "fixed_noise"}
    assert "wrong_label_decoded" not in run.result["diagnostics"]  # there is no one attack to ask about


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("mode", ["plain", "e2e"])
def test_defense_vae_modes_run(train_run, mode):
    check(train_run(*tiny("defense_vae")[:2], *tiny("defense_vae")[-2:], *ONE_STEP, f"defense.mode={mode}"))


@pytest.mark.usefixtures("quiet_figures")
def test_the_denoisers_protocol_runs_with_its_controls(train_run):
    run = train_run(*tiny("cae")[:2], *tiny("cae")[-2:], "protocol=paper/cae", "protocol.suites.paper.attacks.pgd.steps=2",
                    "protocol.suites.controls.attacks.mim.steps=1",
                    "protocol.suites.white_box.attacks.apgd.steps=1", "protocol.suites.white_box.attacks.cw.steps=1",
                    "protocol.suites.adapted.attacks.adapted.steps=1")  # fmt: skip
    found = {key[:3] for key in check(run)}
    assert {("cae", name, "end_to_end") for name in ("fgsm", "pgd", "apgd_ce", "carlini_wagner")} <= found
    assert (run.folder / "gallery_transfer.npz").is_file()
    assert {("cae", "random_sign", "transfer"), ("undefended", "fgsm", "end_to_end")} <= found
    assert {key[2] for key in found if key[:2] == ("cae", "adapted_pgd")} == {"end_to_end", "bpda"}
    assert {"clean_change", "wrong_label_decoded", "wrong_label_ignored"} <= set(run.result["diagnostics"])


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("loss", ["madry", "trades", "mart"])
def test_robust_losses_run(train_run, loss):
    run = train_run(*tiny("adversarial_training"), f"defense.robust.loss={loss}", "defense.warm_start=true",
                    "protocol.suites.all.attacks={fgsm: {}, pgd: {}, bim: {steps: 1}}")  # fmt: skip
    check(run)


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize(("debug", "train", "n"), [("limit", 64, 64), ("overfit", 200, 64)])
def test_debug_options_run(train_run, debug, train, n):
    run = train_run(*LIGHT, SHORT, f"debug={debug}", "defense.training.epochs=2",
                    *([] if debug == "overfit" else ["dataset.limit_train=64"]))  # fmt: skip
    check(run, n)


def test_a_whole_run_explains_itself(train_run):
    """Nothing patched away: every promised file, and the resolved composition that makes the run again."""
    run = train_run(*LIGHT, SHORT, "~debug", "protocol.n_test=8", "defense.training.epochs=2", "report=true")
    check(run)
    names_there = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "environment.json",
        "records.parquet",
        "result.json",
        "result.md",
        "gallery.npz",
        "report.html",
    } <= names_there
    page = (run.folder / "report.html").read_text()
    assert "training.epochs" in page, "with its configuration"
    assert "data_dir" not in page, "but not with where things lie"
    assert {"figures/accuracy.png", "metrics/undefended/version_0/metrics.csv"} <= names_there
    assert not [name for name in names_there if ".half" in name or name.startswith(".")]
    assert "${" not in (run.folder / "config.yaml").read_text()
    assert json.loads((run.folder / "environment.json").read_text())["packages"]["torch"] == version("torch")
    assert "pgd" in (run.folder / "result.md").read_text()
