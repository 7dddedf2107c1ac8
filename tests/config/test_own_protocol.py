"""``protocol=paper`` stands for the protocol of the defense's own tables."""

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from robustforge.config.locate import config_folder
from robustforge.config.own_protocol import own_protocol
from robustforge.types import UserError

CONF = config_folder()
DEFENSES = {path.stem: get_class(OmegaConf.load(path)["_target_"]) for path in (CONF / "defense").glob("*.yaml")}


@pytest.mark.parametrize("defense", [name for name, kind in DEFENSES.items() if kind.paper_protocol])
def test_every_paper_has_a_protocol_that_exists(defense):
    found = own_protocol([f"defense={defense}", "dataset=digits", "protocol=paper"], CONF)
    name = found[-1].removeprefix("protocol=")
    assert name != "paper"
    assert (CONF / "protocol" / f"{name}.yaml").exists()


def test_the_default_defense_the_data_set_and_other_arguments_count():
    assert own_protocol(["protocol=paper", "seed=1"], CONF) == ["protocol=memory_defense", "seed=1"]
    assert own_protocol(["defense=gmvae", "dataset=svhn", "protocol=paper"], CONF)[-1] == "protocol=gmvae_colour"
    assert own_protocol(["defense=gmvae", "protocol=standard"], CONF) == ["defense=gmvae", "protocol=standard"]


def test_a_run_folder_names_its_defense(tmp_path):
    OmegaConf.save(
        {
            "defense_name": "dynamic",
            "dataset": {"name": "digits"},
            "defense": {"_target_": "robustforge.defenses.dynamic.DynamicTraining"},
        },
        tmp_path / "config.yaml",
    )
    assert own_protocol([f"run={tmp_path}", "protocol=paper"], CONF)[-1] == "protocol=dfl_pcl"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["defense=none"], "no paper"),
        (["defense=memdef,gmvae", "-m"], "several defenses"),
        (["defense=nothing"], "no defense=nothing"),
        (["run=nowhere"], "no run folder"),
    ],
)
def test_mistakes_are_told(arguments, words):
    with pytest.raises(UserError, match=words):
        own_protocol([*arguments, "protocol=paper"], CONF)
