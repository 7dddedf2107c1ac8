"""No setting of any file in conf/ takes what it cannot be: each in turn gets a wrong value, and is named."""

import math

import pytest
from omegaconf import OmegaConf
from tests.config.test_compositions import nodes, options

from robustforge.config.instantiate import build
from robustforge.config.places import settled
from robustforge.config.tables import GIVEN
from robustforge.config.values import check_node
from robustforge.types import UserError

# one composition that holds every option of these groups
GROUPS = ("attack", "model", "optimizer", "scheduler", "defense")
NEEDS = ("dataset.path=a.npz", "all.defense.pretrained.network=${model}", "all.model.own.network=${model}")
WRONG = {
    "text": "abc",
    "negative": -1,
    "NaN": math.nan,
    "infinity": math.inf,
    "yes": True,
    "list": [],
    "names": {},
    "half": 2.5,
    "null": None,
}
# settings that mean something with such a value, and what
SENSIBLE = {
    "text": {
        "a name of one's own": ("name",),
        "names a file, a folder or a hash, looked for with the data": ("path", "data_dir", "sha256", "weights"),
        "a fraction as text, which is read before": ("ImageData.eps",),
        "looked up when the data is read": ("kind",),
        "a name that Lightning or PyTorch knows": ("accelerator", "devices", "strategy", "precision", "backend"),
        "a place in the answer of a network": ("output",),
    },
    "negative": {
        "all devices": ("devices",),
        "darkens": ("theta",),
        "below all risks: everything is rejected": ("Protocol.threshold",),
        "the last answer of a network": ("output",),
        "refused with the other precisions": ("precision",),
        "subtracted": ("Pretrained.mean", "own_network.mean"),
    },
    "list": {
        "no suite of this kind": ("surfaces", "false_positive_rates"),
        "nothing is sampled": ("sampled",),
        "no milestone": ("milestones",),
        "no temperature: no detector of divergence": ("temperatures",),
        "no hidden layer": ("hidden",),
        "refused by the command": ("devices",),
    },
    "names": {
        "no attack but the run's own": ("suites", "Suite.attacks"),
        "refused by the defense or the attack, which knows why": (
            "train_attacks",
            "WorstCase.attacks",
            "Sampled.attacks",
        ),
    },
    "null": {
        "off, or the default": (
            *("train_budgets", "data_dir", "follow", "precision", "enable_progress_bar", "enable_model_summary"),
            *(
                "enable_checkpointing",
                "log_every_n_steps",
                "deterministic",
                "augment",
                "attack",
                "feature_loss",
                "main",
            ),
            *("path", "StackSettings.threat", "pretrained", "PixelDefend.average", "EfficientDefense.limit"),
            "LearningRateMonitor.logging_interval",
        ),
    },
}


def leaf(value):
    return not (isinstance(value, dict) and "_target_" in value)


@pytest.fixture(scope="module")
def settings(compose):
    """(class, name of the setting) -> (node that holds it, its objects left out), every setting once."""
    every = [f"+{group}@all.{group}.{name}={name}" for group, name in options() if group in GROUPS]
    cfg = settled(compose("defense=none", "callbacks=compile", *every, *NEEDS))
    found = {}
    for _, node in nodes(OmegaConf.to_container(cfg)):
        kind = node["_target_"].rsplit(".", 1)[1]
        for name in node:
            if not name.startswith("_") and name not in GIVEN:
                small = {
                    key: item if leaf(item) else {"_target_": "builtins.object"}
                    for key, item in node.items()
                    if key not in GIVEN
                }
                found.setdefault((kind, name), small)
    return found


def wrong(value, default, what):
    """Whether a value is none that the setting may have, judged by the value that it has."""
    if isinstance(default, bool):
        return not isinstance(value, bool)
    if isinstance(default, int | float) and not isinstance(value, str | bool | list | dict | None):
        whole = isinstance(default, int)
        return math.isnan(value) or math.isinf(value) or value < 0 or (whole and value != int(value))
    if default is None and what == "half":
        return False  # whether whole or not, only the hint knows
    return type(value) is not type(default) or (what == "text" and isinstance(default, str)) or value != default


@pytest.mark.parametrize("what", WRONG)
def test_no_setting_takes_what_it_cannot_be(settings, what):
    sensible = {name for names in SENSIBLE.get(what, {}).values() for name in names}
    taken, seen, count = [], set(), 0
    for (kind, name), node in settings.items():
        value, default = WRONG[what], node[name]
        if not wrong(value, default, what) or value == default:
            continue
        count += 1
        cfg = OmegaConf.create({"at": {"node": {**node, name: value}}})
        try:
            check_node(cfg.at.node)
        except UserError as error:
            text = str(error)
            assert text.startswith(f"at.node.{name} is ")
            assert text.endswith((".", "?"))
            assert "\n" not in text
        else:
            seen |= {name, f"{kind}.{name}"} & sensible
            taken += [] if {name, f"{kind}.{name}"} & sensible else [f"{kind}.{name}"]
    assert taken == []
    assert seen == sensible  # the table promises no more than there is
    assert count > 150


def test_every_default_is_taken(settings):
    for (kind, name), node in settings.items():
        try:
            check_node(OmegaConf.create(node))
        except UserError as error:
            pytest.fail(f"{kind}.{name}: {error}")


def test_of_several_places_the_one_that_was_set_is_named(compose):
    """The run's attack is the protocol's main one, the optimizer that of every stage."""
    from robustforge.config import tables
    from robustforge.config.values import check_run

    for override in ("attack.steps=2.5", "optimizer.lr=-1", "dataset.seed=-1"):
        key, _, value = override.partition("=")
        with pytest.raises(UserError, match=f"^{key} is {value}: give a (whole )?number"):
            check_run(settled(compose(override)), tables.Run)


class Mine:
    """Of a user's module: hints where it has any."""

    def __init__(self, depth: int, device: "Mine | None" = None, rate: float | None = None, **more) -> None:
        self.given = {"depth": depth, "device": device, "rate": rate, **more}


def of_mine(depth, wdith: int = 3):
    return depth, wdith


def test_a_users_own_hints_count():
    target = f"{__name__}.{of_mine.__name__}"
    assert build(OmegaConf.create({"_target_": target, "depth": "any"})) == ("any", 3)
    with pytest.raises(UserError, match="^wdith is 'a': give a whole number"):
        build(OmegaConf.create({"_target_": target, "depth": 1, "wdith": "a"}))
    with pytest.raises(UserError, match=r"no setting width \(did you mean 'wdith'\?\)"):
        build(OmegaConf.create({"_target_": target, "depth": 1, "width": 1}))
    with pytest.raises(UserError, match="There is no depth"):
        build(OmegaConf.create({"_target_": target}))
    own = build(OmegaConf.create({"_target_": f"{__name__}.Mine", "depth": 2, "device": "cpu", "rate": None, "a": 1}))
    assert own.given == {"depth": 2, "device": "cpu", "rate": None, "a": 1}
