"""Keys cannot lie: whatever a product or a number depends on is in its key."""

import re
import subprocess
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from robustforge import fingerprint
from robustforge.config.instantiate import build
from robustforge.config.locate import config_folder
from robustforge.config.tables import GIVEN
from robustforge.data.augment import Augment
from robustforge.defenses.schedules import constant
from robustforge.defenses.stages import FitStage, Training
from robustforge.evaluation.identity import CellKeys
from robustforge.training.keys import describe_stage
from robustforge.types import UserError

CONF = config_folder()
DEFENSES = sorted(path.stem for path in (CONF / "defense").glob("*.yaml"))
NEEDS = {"pretrained": ["defense.network=${model}"]}  # what a defense leaves to the caller
DATA = SimpleNamespace(fingerprint="data", batch_size=32, eval_batch_size=40, augment=Augment(), seed=0)


def keys_of(defense):
    """Stage name -> key."""
    keys = {}
    for owner in (*defense.built_on(), defense):
        for stage in owner.stages():
            keys[stage.name] = fingerprint.key_of(describe_stage(stage, owner, DATA, keys, {}))
    return keys


def leaves(value, path=()):
    """(path, value) of everything in plain values that is no mapping."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("_target_", "_partial_", "_convert_"):
                yield from leaves(item, (*path, key))
    elif not isinstance(value, list) or not any(isinstance(item, dict) for item in value):
        yield path, value


def changes(value):
    """Other values of the same kind, the likelier valid first."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value, max(1, value // 2), value + 10]
    if isinstance(value, float):
        return [0.9 * value, 0.5, 1.1 * value + 0.01, 0.25]
    if isinstance(value, list):
        return [[*value[:-1], other] for other in changes(value[-1])] if value else []
    return [1, 0.5, "pgd"] if value is None else []


def offered(error):
    """The words that a refusal offers."""
    found = re.search(r"(?:choose (?:one of )?|: give )([^.:(]+)", str(error))
    words = re.split(r", (?:or )?| or ", found.group(1).replace("'", "").strip()) if found else []
    return [word for word in words if " " not in word and word != "null"]


def rebuilt(plain, path, value):
    """The defense with the leaf at ``path`` set to ``value``, or the reason why it cannot be."""
    changed = OmegaConf.create(plain)
    OmegaConf.update(changed, ".".join(map(str, path)), value, merge=False)
    try:
        return build(changed)
    except (UserError, InstantiationException) as error:
        return error


def variants(plain, path, value):
    """A defense whose leaf at ``path`` is another one; None where no other value was found that is accepted."""
    candidates = changes(value)
    if isinstance(value, str):
        candidates = offered(rebuilt(plain, path, "no such thing"))
    for candidate in candidates:
        if candidate != value:
            made = rebuilt(plain, path, candidate)
            if not isinstance(made, Exception):
                return made
    return None


@pytest.mark.parametrize("defense", DEFENSES)
def test_every_argument_of_every_defense_is_in_a_key(compose, defense):
    """Each leaf of its YAML in turn; and a stage that keeps its key keeps its initial weights."""
    plain = OmegaConf.to_container(compose(f"defense={defense}", *NEEDS.get(defense, [])).defense, resolve=True)
    plain = {key: value for key, value in plain.items() if key not in GIVEN}
    base = build(OmegaConf.create(plain))
    keys, arguments = keys_of(base), fingerprint.describe(base)
    tried, unseen, untried = 0, [], []
    for path, value in leaves(plain):
        changed = variants(plain, path, value)
        if changed is None:
            untried.append(path)
            continue
        tried += 1
        found = keys_of(changed)
        if found == keys and fingerprint.describe(changed) == arguments:  # the latter is part of every cell's key
            unseen.append(path)
        assert_same_networks(base, changed, {name for name in keys if found.get(name) == keys[name]}, path)
    assert not unseen, f"changed without a new key: {unseen}"
    assert tried >= 3 * len(untried), f"no other value was found for {untried}"


def assert_same_networks(one, two, names, path):
    stages = {stage.name: stage for stage in one.stages() if isinstance(stage, FitStage) and stage.name in names}
    for name, stage in stages.items():
        for module in stage.trains:
            first, second = getattr(one, module).state_dict(), getattr(two, module).state_dict()
            assert first.keys() == second.keys(), f"{path}: stage {name} keeps its key and has another {module}"
            for key in first:
                assert torch.equal(first[key], second[key]), f"{path}: stage {name}, {module}.{key}"


@pytest.mark.parametrize("defense", DEFENSES)
def test_cells_depend_on_weights_and_arguments(compose, defense):
    cfg = compose(f"defense={defense}", *NEEDS.get(defense, []))
    made, protocol = build(cfg.defense), build(cfg.protocol)
    stages = keys_of(made)

    def keys(of=made):
        every = CellKeys(of, DATA, protocol, stages)
        cells = protocol.cells("it", of.surfaces(), of.systems())
        return {(c.system, c.surface.name, str(c.attack), str(c.threat)): every(c, 10) for c in cells}

    first = keys()
    assert len(set(first.values())) == len(first), "two cells with one key"
    assert keys() == first
    assert keys(build(cfg.defense)) == first, "the same defense, built again"
    own = {name for name in first if name[0] == "it"}
    made.arguments["seed"] = 12345
    assert all(keys()[name] != first[name] for name in own)
    made.arguments["seed"] = 0
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.5).add_(0.01)
    assert all(keys()[name] != first[name] for name in own)


# ---- source and files -------------------------------------------------------------------------------------------------

MODULE = '''
"""A defense of one's own."""
import torch.nn.functional as F
from torch import nn
from robustforge.defenses.base import Defense
from robustforge.types import DefenseOutput

def loss(logits, y):
    """Says nothing that counts."""
    return F.cross_entropy(logits, y)  # a comment

class Mine(Defense):
    def __init__(self, width=4, *, training, seed=0):
        super().__init__(seed=seed, training=training)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, 10))

    def forward(self, x):
        return DefenseOutput(self.net(x))

    def losses(self, batch):
        return {"loss": loss(self.net(batch.x), batch.y)}
'''


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """imported(text): a module of that source, as a new process would see it."""
    import importlib
    import sys

    monkeypatch.syspath_prepend(tmp_path)

    def call(text):
        (tmp_path / "mine_for_keys.py").write_text(text)
        sys.modules.pop("mine_for_keys", None)
        importlib.invalidate_caches()
        fingerprint.source_hash.cache_clear()
        return importlib.import_module("mine_for_keys")

    yield call
    sys.modules.pop("mine_for_keys", None)
    fingerprint.source_hash.cache_clear()


TRAINING = Training(1, partial(torch.optim.SGD, lr=0.1), constant)


def test_the_source_of_ones_own_module_counts(imported):
    first = keys_of(imported(MODULE).Mine(training=TRAINING))
    assert keys_of(imported(MODULE).Mine(training=TRAINING)) == first
    words = MODULE.replace("Says nothing", "Still says nothing").replace("# a comment", "  # another")
    assert keys_of(imported(words.replace("def losses", "\n\n    def losses")).Mine(training=TRAINING)) == first
    other = MODULE.replace("F.cross_entropy(logits, y)", "2 * F.cross_entropy(logits, y)")
    assert keys_of(imported(other).Mine(training=TRAINING)) != first


def test_the_source_of_a_methods_folder_and_of_an_attack_count(compose, monkeypatch):
    cfg = compose("defense=cae")
    defense = build(cfg.defense)
    first = keys_of(defense)
    read = fingerprint.normalized_source

    def changed(name):
        monkeypatch.setattr(
            fingerprint, "normalized_source", lambda text: read(text) + ("changed" if name in text else "")
        )
        fingerprint.source_hash.cache_clear()
        return keys_of(defense)

    try:
        losses = changed("class Denoiser(")
        assert losses["undefended"] == first["undefended"]
        assert losses["denoiser"] != first["denoiser"]
        attack = changed("class FGSM(")
        assert attack["adversarial_set"] != first["adversarial_set"]
        assert changed("def small_cnn(")["undefended"] != first["undefended"]
        assert changed("no module says this") == first
    finally:
        fingerprint.source_hash.cache_clear()


def test_erasing_is_in_the_keys_of_the_stages_that_erase(compose):
    defense = build(compose("defense=memdef").defense)

    def keys(erasing):
        data = SimpleNamespace(**{**vars(DATA), "augment": Augment(crop=4, erasing=erasing)})
        return {s.name: fingerprint.key_of(describe_stage(s, defense, data, NAMES, {})) for s in defense.stages()}

    changed = {name for name, key in keys(0.5).items() if key != keys(0.0)[name]}
    assert changed == {"undefended", "selector"}


NAMES = {"undefended": "undefended", "selector": "selector"}


def test_a_file_counts_by_its_content(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"one")
    (tmp_path / "b.pt").write_bytes(b"one")

    def described(name):
        return fingerprint.describe(partial(torch.nn.Linear, weights=str(tmp_path / name)))

    first = described("a.pt")
    assert described("b.pt") == first
    (tmp_path / "a.pt").write_bytes(b"two")
    assert described("a.pt") != first
    assert described("missing.pt") != first
    assert fingerprint.describe("digits") == "digits"
    assert fingerprint.describe(tmp_path) != fingerprint.describe(str(tmp_path / "a.pt"))


def test_the_code_is_told():
    state = fingerprint.code_state()
    assert set(state) == {"version", "source", "commit", "modified"}
    assert re.fullmatch("[0-9a-f]{16}", state["source"])
    assert state["commit"] is None or re.fullmatch("[0-9a-f]{40}", state["commit"])


def test_results_that_a_command_wrote_are_no_changes_of_the_code(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True
        )

    git("init", "-q")
    written = ["results/cae/table2.json", "docs/figures/cae.svg", "README.md", "src/defenses/cae/README.md"]
    for name in [*written, "src/code.py", "conf/train.yaml"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    git("add", "-A")
    git("commit", "-qm", "all")
    for name in written:
        (tmp_path / name).write_text("after")
    assert fingerprint._checkout(tmp_path)["modified"] is False
    for name in ("src/code.py", "conf/train.yaml"):
        (tmp_path / name).write_text("after")
        assert fingerprint._checkout(tmp_path)["modified"] is True
        (tmp_path / name).write_text("before")


def test_the_readmes_example_has_a_key_for_each_of_its_variants(imported):
    """Copied verbatim from the README: other factories and other arguments are other products."""
    text = (CONF.parent / "README.md").read_text()
    example = re.search(r"```python\n(class Reconstruct.*?)```", text, re.S).group(1)
    module = imported(
        "import torch.nn.functional as F\nfrom robustforge.defenses.base import Defense\n"
        "from robustforge.defenses.stages import build_seeded\nfrom robustforge.types import DefenseOutput\n" + example
    )
    model = partial(torch.nn.Linear, 784, 10)

    def keys(width, dropout=0.0):
        autoencoder = partial(autoencoder_of, width=width, dropout=dropout)
        return keys_of(module.Reconstruct(model, autoencoder, TRAINING))["fit"]

    assert len({keys(16), keys(512), keys(16, 0.5)}) == 3
    assert keys(16) == keys(16)


def autoencoder_of(width, dropout):
    return torch.nn.Sequential(torch.nn.Linear(784, width), torch.nn.Dropout(dropout), torch.nn.Linear(width, 784))
