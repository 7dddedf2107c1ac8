"""Names and outputs stay in their place, and a password is refused before it is written anywhere."""

import pytest
from omegaconf import OmegaConf

from robustforge.config.logger_settings import check_overrides, check_settings
from robustforge.config.outputs import check_names, check_output
from robustforge.training.store import ArtifactStore
from robustforge.types import UserError


@pytest.mark.parametrize("key", ["protocol.name", "dataset.name", "defense_name"])
@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../b", "a\\..\\b", ".hidden", "a//b", "", "a\nb"])
def test_names_that_lead_elsewhere_are_refused(key, name):
    cfg = OmegaConf.create(
        {"protocol": {"name": "paper/memdef"}, "dataset": {"name": "cifar10"}, "defense_name": "cae"}
    )
    check_names(cfg)
    OmegaConf.update(cfg, key, name)
    with pytest.raises(UserError, match=f"{key} is .*, which is no name for a file"):
        check_names(cfg)


def test_outputs_onto_a_run_or_a_store_are_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    store = ArtifactStore(tmp_path / "store").root
    check_output(tmp_path / "run" / "adversarial_sets" / "x", "out", store)
    with pytest.raises(UserError, match="out=.* is the folder of a run"):
        check_output(tmp_path / "run", "out", store)
    (tmp_path / "link").symlink_to(store)
    for folder in (store, store / "x", tmp_path / "a" / ".." / "store" / "x", tmp_path / "link" / "x"):
        with pytest.raises(UserError, match="out=.* is in the store"):
            check_output(folder, "out", store)
    with pytest.raises(UserError, match="The store .* is the folder of a run"):
        ArtifactStore(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml"]


@pytest.mark.parametrize("override", ["+logger.api_key=s3cret", "++logger.key.deep=s3cret", "logger.api_key=s3cret"])
@pytest.mark.parametrize("more", [[], ["-m", "seed=1,2"]])
def test_a_password_is_refused_and_written_nowhere(command, tmp_path, override, more):
    done = command(override, *more, f"paths.output_dir={tmp_path / 'out'}", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.code == 2
    assert "is no setting of a logger" in done.err
    assert "s3cret" not in done.err + done.out
    assert not list(tmp_path.rglob("*"))


def test_settings_of_loggers_are_known(compose):
    for kind in ("csv", "wandb", "tensorboard"):
        check_settings(compose(f"logger={kind}").logger)
    check_overrides(["logger=wandb", "logger.project=x", "+logger.entity=y", "loggers.z=1", "seed=1", "-m"])
    with pytest.raises(UserError, match=r"^logger\.api_key is no setting"):
        check_settings({"kind": "wandb", "api_key": "s3cret"})
    with pytest.raises(UserError, match="choose one of csv, wandb, tensorboard"):
        check_settings({"kind": "mlflow"})
