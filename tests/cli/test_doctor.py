"""What the doctor finds, and what it advises."""

import numpy as np
import pytest

from robustforge.cli import doctor, health


def states(found):
    return {finding.state for finding in found}


def test_this_installation_is_sound():
    assert states(health.packages()) == {"good"}
    assert "torch " in health.packages()[-1].said


@pytest.mark.parametrize(
    ("have", "said"),
    [
        (None, "lightning is missing, lightning<3,>=2.6.6 is needed"),
        ("2.6.3", "lightning 2.6.3 is installed, lightning<3,>=2.6.6 is needed"),
    ],
)
def test_a_package_that_is_missing_or_of_a_refused_version_is_broken(monkeypatch, have, said):
    real = health._installed
    monkeypatch.setattr(health, "_installed", lambda name: have if name == "lightning" else real(name))
    (broken,) = [finding for finding in health.packages() if finding.state == "broken"]
    assert (broken.said, broken.advice) == (said, "pip install 'lightning<3,>=2.6.6'")


def test_a_driver_without_a_matching_torch_is_broken(monkeypatch):
    monkeypatch.setattr(health.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(health.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert health.devices()[-1].state == "broken"
    monkeypatch.setattr(health.shutil, "which", lambda name: None)
    assert health.devices()[-1].said.startswith("no GPU")


def test_data_sets_are_found_as_the_data_module_finds_them(tmp_path):
    np.savez(tmp_path / "mnist.npz", x=np.zeros(1))
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (tmp_path / "cifar-10-batches-py" / name).touch()
    _, there, missing = health.data(tmp_path)
    assert there.said.endswith(": mnist, cifar10")
    assert missing.said.endswith(": fashion_mnist, svhn")


def test_a_full_disk_and_a_file_in_the_way_are_broken(monkeypatch, tmp_path):
    assert states(health.outputs(tmp_path / "outputs")) == {"good"}
    assert not (tmp_path / "outputs").exists()  # nothing is written
    (tmp_path / "file").touch()
    assert states(health.outputs(tmp_path / "file" / "outputs")) == {"broken"}
    usage = health.shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(health.shutil, "disk_usage", lambda place: usage)
    assert health.outputs(tmp_path)[0].advice.startswith("free some disk space")


def test_what_the_store_holds_is_counted(tmp_path):
    product, cells = tmp_path / "store" / "classifier-0123", tmp_path / "store" / "cells"
    for path in (product / "manifest.json", cells / "a.parquet", cells / "b.parquet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert health.outputs(tmp_path)[1].said.startswith("the store has 1 products and 2 measured cells")


def test_the_login_is_looked_for_where_wandb_keeps_it(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert states(health.weights_and_biases()) == {"note"}
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret")
    assert "secret" not in health.weights_and_biases()[0].said
    assert states(health.weights_and_biases()) == {"good"}
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert states(health.weights_and_biases()) == {"good"}


def test_the_command_prints_every_topic_and_tells_by_its_exit_code(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit, match="0"):
        doctor.main(["--output-dir", str(tmp_path), "--data-dir", str(tmp_path)])
    printed = capsys.readouterr().out
    for topic in ("packages", "devices", "data", "outputs", "Weights & Biases"):
        assert f"\n{topic} " in f"\n{printed}"
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="1"):
        doctor.main(["--output-dir", str(tmp_path / "file")])
    assert "set paths.output_dir" in capsys.readouterr().out
