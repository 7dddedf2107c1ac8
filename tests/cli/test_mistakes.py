"""What the four commands say to a mistake, before the configuration's values are looked at and after."""

import json
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from robustforge.cli import adversarial_set, evaluate, reproduce, train

MAINS = {"train": train.main, "evaluate": evaluate.main, "set": adversarial_set.main, "reproduce": reproduce.main}

# command and arguments: words of the sentence
TRAIN = {
    "defense=memdeff": ["no defense 'memdeff'", "'memdef'"],
    "defense=MEMDEF": ["'memdef'"],
    "defense=": ["no defense ''", "memdef"],
    "defense=null": ["names of its options"],
    "attack=5": ["names of its options"],
    "dataset=cifar": ["'cifar10'"],
    "attack=pgdd": ["'pgd'"],
    "attack=torchattacks/PGDL": ["'torchattacks/PGDL2'"],
    "model=resnet19": ["'resnet18'"],
    "trainer=cpuu": ["'cpu'"],
    "logger=wandbb": ["'wandb'"],
    "debug=fastt": ["'fast'"],
    "scheduler=cosin": ["'cosine'"],
    "optimizer=adamm": ["'adam'"],
    "threat=linff": ["'linf'"],
    "callbacks=defualt": ["'default'"],
    "protocol=standrad": ["'standard'"],
    "protocol=paper/memdeff": ["'paper/memdef'"],
    "experiment=memdef/pgd_shrt": ["'memdef/pgd_short'"],
    "attak=pgd": ["'attack'"],
    "sede=1": ["'seed'"],
    "steps=3": ["'attack.steps'"],
    "attack.stepz=3": ["'attack.steps'"],
    "attack.loss.x=1": ["'attack.loss'"],
    "trainer.device=2": ["'trainer.devices'"],
    "+attack.steps=3": ["leave out the +"],
    "+model=resnet18": ["leave out the +"],
    "~attack.stepz": ["'attack.steps'"],
    "~nope": ["nope"],
    "attack.steps": ["cannot be read"],
    "attack.steps=[1": ["cannot be read"],
    "attack.steps={a": ["cannot be read"],
    "attack.steps=1,2": ["[1,2]", "-m"],
    "attack.steps={a:1}": ["attack.steps is {'a': 1}"],
    "=3": ["names of its options"],
    "a.b.c=1": ["a.b.c"],
    "optimizer.lr=${nope}": ["nope"],
    "optimizer.lr=${oc.env:NO_SUCH_VARIABLE}": ["NO_SUCH_VARIABLE"],
    "attack.name=${attack.steps.x}": ["cannot be looked up"],
    "attack@foo=pgd": ["attack@foo"],
    "trainer.devices=abc": ["trainer.devices is abc"],
    "evaluate=maybe": ["evaluate is 'maybe'"],
}  # fmt: skip
EVALUATE = {
    "": ["run=<value>"],
    "run=no/such/run": ["no run folder"],
    "run=null": ["run is null"],
    "run=[a]": ["run is ['a']"],
    "rum=here": ["'run'"],
    "run=here seed=true": ["seed is true"],
    "run=here seed=-1": ["seed is -1"],
    "run=here progress=maybe": ["progress is 'maybe'"],
    "run=here overwrite=5": ["overwrite is 5"],
    "run=here trust=5": ["trust is 5"],
    "run=here device=5": ["device is 5"],
    "run=here dataset.eps=abc": ["dataset.eps is 'abc'"],
    "run=here dataset.eps=-1": ["dataset.eps is -1"],
    "run=here dataset.path=5": ["dataset.path is 5"],
    "run=here paths.store_dir=5": ["paths.store_dir is 5"],
    "run=here store.made_by_other_code=warm": ["'warn'"],
    "run=here protocol=smokee": ["'smoke'"],
    "run=here attack=pgdd": ["'pgd'"],
    "run=here defence.x=1": ["'defense'"],
    "run=here defense=5": ["names of its options"],
}  # fmt: skip
SET = {
    "": ["run=<value>"],
    "run=no/such/run": ["no run folder"],
    "run=here split=tset": ["'test'"],
    "run=here splt=test": ["'split'"],
    "run=here surface=5": ["surface is 5"],
    "run=here out=5": ["out is 5"],
    "run=here seed=1.5": ["seed is 1.5"],
    "run=here attack=pgdd": ["'pgd'"],
    "run=here progress=[]": ["progress is []"],
}  # fmt: skip
REPRODUCE = {
    "memdef/table9": ["no table 'memdef/table9'"],
    "memdef": ["no table 'memdef'"],
    "memdef/table1 profile=cpuu": ["no profile 'cpuu'"],
    "memdef/table1 --runs nope": ["no run 'nope'"],
    "memdef/table1 profile": ["cannot be read"],
    "memdef/table1 seed=[1": ["cannot be read"],
    "memdef/table1 --show profile=x": ["no profile 'x'"],
}  # fmt: skip
COMMANDS = {"train": TRAIN, "evaluate": EVALUATE, "set": SET, "reproduce": REPRODUCE}
CASES = [(name, said, words) for name, cases in COMMANDS.items() for said, words in cases.items()]

# what is written into the config.yaml of a run: words of the sentence
PLACES = "paths: {data_dir: d, output_dir: o, store_dir: s}"
RUNS = {
    None: ["no config.yaml"],
    "": ["is no configuration"],
    "{": ["cannot be read"],
    "a: [1": ["cannot be read"],
    "- 1": ["must hold keys"],
    "just text": ["of no run"],
    "a: 1": ["of no run"],
    "\x00": ["cannot be read"],
    "a: !!python/object/apply:os.system [ls]": ["cannot be read"],
    "seed: ${oc.env:HOME}": ["interpolation"],
    "${a}: 1": ["interpolation"],
    "defense: {_target_: os.system, command: ls}": ["os.system", "trust=os"],
    "defense: {_target_: 5}": ["_target_"],
    "defense: {_target_: [a]}": ["_target_"],
    "defense: {_target_: robustforge.nowhere.X}": ["robustforge.nowhere.X"],
    "defense: {_target_: robustforge.files.write_text, path: x, text: y}": ["write_text"],
    "defense: 5": ["of no run"],
    "dataset: {name: digits}": ["of no run"],
    "defense: {}\ndataset: {}\ntrainer: {}": ["of no run"],
}  # fmt: skip


@pytest.fixture
def said(monkeypatch, capfd, tmp_path):
    """said(command, *arguments): its exit code and what it says on stderr; nothing may be left in its folder."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        before = sorted(tmp_path.rglob("*"))
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            MAINS[name]()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert sorted(tmp_path.rglob("*")) == before
        return stop.value.code, err.strip()

    yield call
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()


def check_sentence(answer, words):
    code, text = answer
    assert code == 2
    assert text.startswith("Error: ")
    assert "\n" not in text
    assert text[-1] in ".?"
    for word in words:
        assert word in text


@pytest.mark.parametrize(("name", "arguments", "words"), CASES, ids=lambda part: str(part).replace("/", "_")[:60])
def test_a_mistake_is_one_sentence(said, name, arguments, words):
    check_sentence(said(name, *arguments.split()), words)


@pytest.mark.parametrize("typed", ["defense=memdef2", "attack.step=3", "modell=lenet", "defense=", "trainer=cpu1"])
def test_what_was_typed_is_never_what_was_meant(said, typed):
    _, text = said("train", typed)
    key, _, value = typed.partition("=")
    assert f"mean '{value}'" not in text
    assert f"mean '{key}'" not in text


@pytest.mark.parametrize("text", RUNS, ids=lambda text: str(text)[:40])
def test_a_folder_that_is_no_run_is_refused(said, tmp_path, text):
    run = tmp_path / "run"
    run.mkdir()
    if text is not None:
        (run / "config.yaml").write_text(text)
    check_sentence(said("evaluate", f"run={run}"), RUNS[text])


@pytest.fixture(scope="module")
def recorded(compose):
    """What a run of a plain classifier writes into its config.yaml."""
    from robustforge.config.places import settled

    return OmegaConf.to_container(settled(compose("defense=none")))


DAMAGES = [
    ("evaluate", "defense.training.epochs", 1.5, "defense.training.epochs is 1.5"),
    ("evaluate", "dataset.batch_size", 0, "dataset.batch_size is 0"),
    ("evaluate", "model.widths", [], "model.widths is []"),
    ("evaluate", "trainer.precision", "abc", "trainer.precision"),
    ("evaluate", "defense.strange", 1, "defense.strange"),
    ("evaluate", "seed", "abc", "seed is 'abc'"),
    ("evaluate", "dataset", {}, "has no dataset"),
    ("evaluate", "defense", None, "has no defense"),
    ("evaluate", "paths", 5, "has no paths"),
    ("evaluate", "trainer", [], "has no trainer"),
    ("evaluate", "name", None, "name is null"),
    ("set", "name", None, "name is null"),
    ("set", "paths", 5, "has no paths"),
    ("set", "dataset.kind", 5, "dataset.kind is 5"),
]


@pytest.mark.parametrize(("command", "key", "value", "words"), DAMAGES)
def test_a_damaged_run_is_refused(said, recorded, tmp_path, command, key, value, words):
    run, store = tmp_path / "run", tmp_path / "store"
    run.mkdir()
    store.mkdir()
    cfg = OmegaConf.create(recorded)
    cfg.paths.store_dir = str(store)
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    check_sentence(said(command, f"run={run}"), [words])


def test_a_table_stops_at_a_run_that_is_refused(monkeypatch, tmp_path):
    """Every run of the table would refuse the same override."""
    asked = []
    monkeypatch.setattr(reproduce, "_train", lambda overrides, folder: asked.append(overrides) or 2)
    with pytest.raises(reproduce.UserError, match="was refused"):
        reproduce.reproduce("memdef/table1", "cpu", ["seed=abc"], tmp_path)
    assert len(asked) == 1
    assert json.dumps(asked[0]).count("seed=abc") == 1
