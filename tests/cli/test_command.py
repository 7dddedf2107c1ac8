"""The command line as people meet it: help, mistakes, sweeps' plumbing, and a defense of one's own."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from robustforge.cli import pipeline
from robustforge.cli import train as entry
from robustforge.config.presets import find_preset

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "defense=none", "model=lenet", "debug=fast", "report=false", "dataset.limit_train=64", "dataset.batch_size=32", "attack.steps=1",
    "trainer.enable_progress_bar=false", "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 1}}",
)  # fmt: skip


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


# ---- help and printing ----------------------------------------------------------------------------------------------


def test_all_help_shows_examples_groups_and_keys(command):
    shown = command("--help-all")
    assert shown.code == 0
    for line in ("python train.py -m defense.memory_size=20,50,100", "python train.py debug=fast", "dataset: "):
        assert line in shown.out
    for group, option in (("defense", "memdef"), ("dataset", "fashion_mnist"), ("attack/torchattacks", "CW")):
        line = next(line for line in shown.out.splitlines() if line.startswith(f"{group}: "))
        assert option in line
    assert "memory_size: " in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--cfg", "job", "defense=none", "seed=3"),
        ("defense=none", "seed=3", "--cfg", "job"),
        ("--cfg", "job", "defense=memdef", "dataset=digits", "seed=3"),  # a pair with a preset
    ],
    ids=" ".join,
)
def test_cfg_prints_a_composition_and_does_nothing(command, tmp_path, arguments):
    shown = command(*arguments, f"paths.output_dir={tmp_path}") if arguments[0] == "--cfg" else command(*arguments)
    preset = find_preset(arguments, ROOT / "conf")
    assert (shown.code, shown.err) == (0, f"{preset}\n" if preset else "")
    printed = yaml.safe_load(shown.out)
    assert printed["seed"] == 3
    assert printed["defense"]["_target_"].startswith("robustforge.defenses.")
    assert not files(tmp_path)


def test_the_preset_is_part_of_what_is_run(command):
    bare, mine = command("--cfg", "job"), command("--cfg", "job", "dataset.batch_size=7")
    preset = yaml.safe_load((ROOT / "conf" / "preset" / "memdef" / "digits.yaml").read_text())["overrides"]
    promised = dict(item.split("=", 1) for item in preset)["dataset.batch_size"]
    assert yaml.safe_load(bare.out)["dataset"]["batch_size"] == int(promised)
    assert yaml.safe_load(mine.out)["dataset"]["batch_size"] == 7


def test_the_papers_budgets_are_the_presets(command):
    shown = command("defense=memdef", "dataset=cifar10", "--cfg", "job", "--resolve")
    budgets = yaml.safe_load(shown.out)["protocol"]["budgets"]
    assert [(budget["norm"], round(255 * budget["eps"], 6)) for budget in budgets] == [
        ("linf", 2), ("linf", 8), ("linf", 16),
    ]  # fmt: skip
    assert shown.err.startswith("Preset conf/preset/memdef/cifar10.yaml sets\n")
    assert "protocol=paper/memdef_cifar10" in shown.err.split()


def test_a_run_says_its_preset_once_beside_its_own_lines(command, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "train", lambda *_: None)
    place = f"paths.output_dir={tmp_path}"
    answer = command(place, "dataset=cifar10", "model=small_cnn")
    assert answer.out.count("Preset conf/preset/memdef/cifar10.yaml sets\n") == 1
    assert answer.out.split("gives way to the command line in")[1].split() == [
        "model=resnet50",
        "model.stem=cifar_pool",
    ]
    assert answer.err == ""
    monkeypatch.setenv("RANK", "1")
    assert "Preset" not in command(place, "dataset=cifar10").out


@pytest.mark.slow
def test_the_real_script_prints_the_composition():
    """One subprocess for the file at the root; everything else runs in this process."""
    done = subprocess.run(
        [sys.executable, "train.py", "--cfg", "job", "defense=none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["evaluate"] is True


# ---- mistakes: one sentence, exit code 2, nothing half-written ------------------------------------------------------

MISTAKES = {
    "no such option": (["defense=memdeff"], ["memdeff", "Did you mean", "memdef"]),
    "no such dataset": (["dataset=fashionmnist"], ["fashion_mnist"]),
    "no such group": (["defence=none"], ["defense"]),
    "mistyped key": (["defense.memory_sise=100"], ["defense.memory_size"]),
    "mistyped inner key": (["protocol.ntest=10"], ["protocol.n_test"]),
    "not a number": (["seed=abc"], ["seed is 'abc'"]),
    "no grammar": (["threat.eps=[0.1"], ["threat.eps=[0.1"]),
    "negative seed": (["seed=-1"], ["seed is -1"]),
    "memory not shared out": (["defense.memory_size=55"], ["55", "10"]),
    "negative budget": (["threat.eps=-1"], ["threat.eps is -1"]),
    "budget above one": (["threat.eps=2"], ["threat.eps is 2"]),
    "no such norm": (["threat.norm=l7"], ["l7", "linf"]),
    "no such surface": (["protocol.suites.all.surfaces=[nonsense]"], ["nonsense", "memdef lacks", "slot_given"]),
    "surface of another defense": (["defense=adversarial_training", "protocol=paper/memdef"],
                                   ["slot_given", "adversarial_training lacks"]),
    "no image": (["protocol.n_test=0"], ["protocol.n_test"]),
    "no epoch": (["defense.undefended_training.epochs=0"], ["epochs"]),
    "no such variant": (["defense.variant=half"], ["half", "oracle_slot"]),
    "image too small": (["model=lenet", "dataset.shape=[1,8,8]"], ["12"]),
    "no batch": (["dataset.batch_size=0"], ["dataset.batch_size"]),
    "no such logger": (["logger.kind=paper"], ["paper", "tensorboard"]),
    "data that is not there": (["dataset=npz", "dataset.path=no/such.npz", "dataset.shape=[1,28,28]",
                                "dataset.num_classes=10"], ["no/such.npz", "x_train"]),
    "data that is not named": (["dataset=npz"], ["dataset.", "=<value>"]),
    "no such torchattack": (["attack=torchattacks/PGDD"], ["torchattacks/PGD"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2(command, tmp_path, name):
    arguments, words = MISTAKES[name]
    answer = command(*arguments, f"paths.output_dir={tmp_path}", "trainer.enable_progress_bar=false")
    assert answer.code == 2
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1, f"more than one line:\n{answer.err}"
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]
    assert "Traceback" not in answer.out
    assert not files(tmp_path), "something was written before the mistake was found"


def test_torchattacks_is_an_extra(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)  # as where it is not installed
    place = f"paths.output_dir={tmp_path}"
    answer = command("attack=torchattacks/PGD", place)
    assert answer.code == 2
    assert answer.err == "Error: torchattacks is not installed: run pip install 'robustforge[torchattacks]'.\n"
    assert not files(tmp_path)
    # its names are listed and composed all the same
    assert yaml.safe_load(command("attack=torchattacks/PGD", "--cfg", "job").out)["attack"]["attack"] == "PGD"


@pytest.mark.parametrize("key", ["paths.output_dir", "paths.store_dir", "hydra.run.dir"])
def test_a_place_that_cannot_be_written(command, tmp_path, key):
    (tmp_path / "file").write_text("in the way")
    places = {"paths.output_dir": tmp_path / "out", key: tmp_path / "file" / "below"}
    answer = command(*TINY, *(f"{place}={path}" for place, path in places.items()))
    assert answer.code == 2
    (line,) = answer.err.strip().splitlines()
    assert str(tmp_path / "file") in line
    assert not files(tmp_path / "out")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.usefixtures("quiet_figures")
def test_a_run_folder_belongs_to_one_configuration(command, tmp_path):
    places = (f"paths.output_dir={tmp_path}", f"hydra.run.dir={tmp_path / 'mine'}")
    first = command(*TINY, *places)
    assert first.code == 0, first.err
    before = {path: path.read_bytes() for path in files(tmp_path)}
    other = command(*TINY, *places, "seed=5")
    assert other.code == 2
    (line,) = other.err.strip().splitlines()
    assert "belongs to another configuration" in line
    assert "seed" in line
    assert {path: path.read_bytes() for path in files(tmp_path)} == before
    # the same command again is welcome, and so are other tags
    again = command(*TINY, *places, "tags=[second]")
    assert again.code == 0, again.err
    assert "reused" in again.out


# ---- where runs go --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quiet_figures")
def test_the_same_command_finds_its_folder_and_another_does_not(command, tmp_path):
    assert command(*TINY, f"paths.output_dir={tmp_path}").code == 0
    (one,) = tmp_path.glob("*/*/result.json")
    assert one.parent.parent.name == "none_digits"
    stamp = one.stat().st_mtime_ns
    assert command(*TINY, f"paths.output_dir={tmp_path}", "tags=[a]", "logger=csv").code == 0
    assert [path for path in tmp_path.glob("*/*/result.json")] == [one]
    assert one.stat().st_mtime_ns > stamp
    assert command(*TINY, f"paths.output_dir={tmp_path}", "seed=1").code == 0
    assert len(list(tmp_path.glob("*/*/result.json"))) == 2


# ---- several processes: what is handed on ---------------------------------------------------------------------------


def test_ranks_get_the_folder_and_hydras_own_overrides(command, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(entry, "run_ranks", lambda *arguments: calls.append(arguments) or 0)
    extra = tmp_path / "conf"
    extra.mkdir()
    answer = command("trainer=ddp_cpu", "seed=4", "defense=pretrained", "defense.network=${model}", f"paths.output_dir={tmp_path}", f"hydra.searchpath=[file://{extra}]",
                     f"hydra.run.dir={tmp_path / 'mine'}")  # fmt: skip
    assert answer.code == 0, answer.err
    ((module, overrides, count),) = calls
    assert (module, count) == ("robustforge.cli.train", 2)
    assert {"trainer=ddp_cpu", "seed=4", "defense.network=${model}", f"hydra.searchpath=[file://{extra}]"} <= set(
        overrides
    )
    assert overrides[-1] == f"hydra.run.dir='{tmp_path / 'mine'}'"


def test_a_failing_rank_is_a_failing_command(command, tmp_path, monkeypatch):
    monkeypatch.setattr(entry, "run_ranks", lambda *_: 1)
    assert command("trainer=ddp_cpu", f"paths.output_dir={tmp_path}").code != 0


# ---- a defense of one's own: two files ------------------------------------------------------------------------------

FOO = dedent('''
    """A defense in fifteen lines."""
    from robustforge.defenses.base import Defense
    from robustforge.defenses.stages import build_seeded
    from robustforge.types import DefenseOutput
    import torch.nn.functional as F

    class Foo(Defense):
        def __init__(self, model, training, noise, seed=0):
            super().__init__(seed=seed, training=training)
            self.noise, self.network = noise, build_seeded(model, seed, "foo")

        def forward(self, x):
            logits = self.network(x)
            return DefenseOutput(logits, risk=-logits.logsumexp(1))

        def losses(self, batch):
            noisy = (batch.x + self.noise * batch.x.new_ones(())).clamp(0, 1)
            return {"cross_entropy": F.cross_entropy(self.network(noisy), batch.y)}
''')  # fmt: skip
FOO_YAML = dedent("""
    _target_: foo.Foo
    model: ${model}
    seed: ${seed}
    noise: 0.1     # pixel units
    training:
      _target_: robustforge.defenses.stages.Training
      epochs: 1
      optimizer: ${optimizer}
      schedule: ${scheduler}
""")


@pytest.fixture
def foo(tmp_path, monkeypatch):
    (tmp_path / "conf" / "defense").mkdir(parents=True)
    (tmp_path / "foo.py").write_text(FOO)
    (tmp_path / "conf" / "defense" / "foo.yaml").write_text(FOO_YAML)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foo", raising=False)
    return f"hydra.searchpath=[file://{tmp_path / 'conf'}]"


@pytest.mark.usefixtures("quiet_figures")
def test_a_new_defense_is_two_files(command, tmp_path, foo):
    arguments = [item for item in TINY if not item.startswith("defense=")]
    answer = command("defense=foo", *arguments, foo, f"paths.output_dir={tmp_path / 'out'}")
    assert answer.code == 0, answer.err
    (path,) = (tmp_path / "out").glob("foo_digits/*/result.json")
    result = yaml.safe_load(path.read_text())
    assert result["defense"] == "foo"
    assert {cell["system"] for cell in result["cells"]} == {"foo"}
    assert [stage["name"] for stage in result["stages"]] == ["fit"]
    assert result["objective"] is not None
    # its own settings are part of its product's key
    assert (
        command("defense=foo", *arguments, foo, "defense.noise=0.2", f"paths.output_dir={tmp_path / 'out'}").code == 0
    )
    assert len(list((tmp_path / "out" / "store").glob("fit-*"))) == 2


MARK = dedent('''
    """An attack in ten lines: the gradient's sign, once."""
    from dataclasses import dataclass
    from robustforge.attacks.core.attack import BaseAttack
    from robustforge.attacks.core.geometry import project
    from robustforge.losses.classification import cross_entropy_per_sample

    @dataclass(frozen=True)
    class Mark(BaseAttack):
        name: str = "mark"
        share: float = 1.0

        def perturb(self, session, seed):
            gradient, _, _ = session.gradient(session.x, session.everyone(), cross_entropy_per_sample)
            moved = session.x + self.share * session.threat.eps * gradient.sign()
            return project(moved, session.x, session.threat)
''')
SPOTS = dedent('''
    """A data set in ten lines: a bright spot whose row is the class."""
    import numpy as np
    from robustforge.data.datamodule import ImageData
    from robustforge.data.sources import Arrays

    class Spots(ImageData):
        def __init__(self, width, **others):
            super().__init__(kind="spots", shape=(1, 8, width), num_classes=4, **others)

        def read(self):
            y = np.arange(200) % 4
            x = np.random.default_rng(0).integers(0, 50, (200, 1, 8, self.shape[2]), dtype=np.uint8)
            x[np.arange(200), 0, 2 * y, 3] = 255
            return Arrays(x[:150], y[:150], x[150:], y[150:])
''')


@pytest.fixture
def own(tmp_path, monkeypatch):
    """own(group, name, module, yaml): a module and a YAML in a temporary folder; the argument that finds them."""

    def call(group, name, module, text):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / f"{name}.py").write_text(module)
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return f"hydra.searchpath=[file://{tmp_path / 'conf'}]"

    return call


@pytest.mark.usefixtures("quiet_figures")
def test_a_new_attack_is_two_files(command, tmp_path, own):
    found = own("attack", "mark", MARK, "_target_: mark.Mark\nname: mark\nshare: 1.0\n")
    arguments = [item for item in TINY if not item.startswith("attack")]
    answer = command(*arguments, "attack=mark", found, f"paths.output_dir={tmp_path / 'out'}")
    assert answer.code == 0, answer.err
    (path,) = (tmp_path / "out").glob("none_digits/*/result.json")
    assert {"mark", "pgd"} <= {cell["attack"] for cell in yaml.safe_load(path.read_text())["cells"]}


@pytest.mark.usefixtures("quiet_figures")
def test_a_new_data_set_is_two_files(command, tmp_path, own):
    text = """
        _target_: spots.Spots
        name: spots
        shape: [1, 8, 10]
        width: 10
        num_classes: 4
        mean: [0.1]
        std: [0.2]
        eps: 0.2
        batch_size: 32
        eval_batch_size: 64
    """
    module = SPOTS.replace(
        "def __init__(self, width, **others)", "def __init__(self, width, shape, num_classes, **others)"
    )
    found = own("dataset", "spots", module, text)
    arguments = [item for item in TINY if not item.startswith(("dataset", "model"))]
    answer = command(*arguments, "dataset=spots", "model=small_cnn", found, f"paths.output_dir={tmp_path / 'out'}")
    assert answer.code == 0, answer.err
    (path,) = (tmp_path / "out").glob("none_spots/*/result.json")
    assert yaml.safe_load(path.read_text())["objective"] is not None


@pytest.mark.usefixtures("quiet_figures")
def test_a_bug_in_a_defense_is_a_traceback_and_no_sentence(command, tmp_path, foo):
    (tmp_path / "foo.py").write_text(FOO.replace("self.network(noisy)", "self.netwrok(noisy)"))
    arguments = [item for item in TINY if not item.startswith("defense=")]
    with pytest.raises(AttributeError, match="netwrok"):
        command("defense=foo", *arguments, foo, f"paths.output_dir={tmp_path / 'out'}")
    assert not list((tmp_path / "out").glob("*/*/result.json"))
    assert not list((tmp_path / "out" / "store").glob("fit-*")), "a product of a fit that failed"


def test_interrupting_says_how_to_go_on(command, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "train", interrupted)
    answer = command(*TINY, f"paths.output_dir={tmp_path}")
    assert answer.code == 130
    assert "same command continues" in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_the_environment_variable_for_data_is_read(command, monkeypatch):
    monkeypatch.setitem(os.environ, "ROBUSTFORGE_DATA", "/somewhere/else")
    assert yaml.safe_load(command("--cfg", "job", "--resolve").out)["dataset"]["data_dir"] == "/somewhere/else"
