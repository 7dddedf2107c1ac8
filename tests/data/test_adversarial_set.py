"""Provenance of adversarial images: reused when it matches, refused with the reason when not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustforge.data.adversarial_set import begin_images, begin_set, close_set, marks, open_set
from robustforge.fingerprint import weights_hash
from robustforge.types import UserError

SHAPE = (5, 1, 4, 4)
MADE_WITH = {"model": "abc", "attack": {"steps": 5}, "seed": 0, "versions": {"torch": "2.15"}}


@pytest.fixture
def finished(tmp_path):
    begin_set(tmp_path, MADE_WITH)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32))
    close_set(tmp_path, MADE_WITH)
    return tmp_path


def test_the_same_provenance_finds_it(finished):
    images = open_set(finished, MADE_WITH)
    assert images.shape == (5, 1, 4, 4)
    assert open_set(finished, {**MADE_WITH, "versions": {"torch": "2.16"}}) is not None  # told, not compared
    assert open_set(finished / "elsewhere", MADE_WITH) is None


def test_another_one_is_refused_and_says_why(finished):
    with pytest.raises(UserError, match=r"seed \(0 there, 1 wanted\)"):
        open_set(finished, {**MADE_WITH, "seed": 1})
    with pytest.raises(UserError, match=r"attack .*'steps': 5.*'steps': 6"):
        open_set(finished, {**MADE_WITH, "attack": {"steps": 6}})


def test_an_unfinished_one_is_continued_by_the_same_only(tmp_path):
    begin_set(tmp_path, MADE_WITH)
    assert open_set(tmp_path, MADE_WITH) is None
    with pytest.raises(UserError, match="made with something else"):
        open_set(tmp_path, {**MADE_WITH, "model": "def"})


def test_images_that_were_changed_are_refused(finished):
    images = np.load(finished / "images.npy")
    images[3, 0, 0, 0] += 0.5
    np.save(finished / "images.npy", images)
    with pytest.raises(UserError, match="not those that were written"):
        open_set(finished, MADE_WITH)


@pytest.mark.parametrize("value", [7.5, -0.5, float("nan")])
def test_pixels_of_no_image_are_refused_when_closed_and_when_opened(tmp_path, monkeypatch, value):
    begin_set(tmp_path, MADE_WITH)
    images = np.zeros((5, 1, 4, 4), np.float32)
    images[3, 0, 1, 1] = value
    np.save(tmp_path / "images.npy", images)
    with pytest.raises(UserError, match=r"The adversarial set in .* has (pixels from|NaN)"):
        close_set(tmp_path, MADE_WITH)
    with monkeypatch.context() as patch:  # as a set that another program declared finished
        patch.setattr("robustforge.data.adversarial_set.check_adversarial", lambda *_: None)
        close_set(tmp_path, MADE_WITH)
    with pytest.raises(UserError, match=r"The adversarial set in .* has (pixels from|NaN)"):
        open_set(tmp_path, MADE_WITH)


@pytest.mark.parametrize("done", [[True] * 4 + [False], [True] * 3])
def test_a_set_that_is_not_wholly_attacked_is_not_closed(tmp_path, done):
    begin_set(tmp_path, MADE_WITH)
    np.save(tmp_path / "images.npy", np.zeros((5, 1, 4, 4), np.float32))
    np.save(tmp_path / "done.npy", np.array(done))
    with pytest.raises(UserError, match=f"{sum(done)} of the 5 images in .* are attacked"):
        close_set(tmp_path, MADE_WITH)
    assert open_set(tmp_path, MADE_WITH) is None


@pytest.fixture
def begun(tmp_path):
    """The folder of a set of which two images are finished."""
    begin_images(tmp_path, SHAPE)
    pixels = np.random.default_rng(0).random(SHAPE, np.float32)
    images, done = (np.lib.format.open_memmap(tmp_path / name, mode="r+") for name in ("images.npy", "done.npy"))
    images[:2], done[:2] = pixels[:2], marks(pixels[:2])
    images.flush()
    done.flush()
    return tmp_path


def set_pixel(path, value):
    images = np.lib.format.open_memmap(path, mode="r+")
    images[1, 0, 2, 2] = value
    images.flush()


def test_an_interrupted_set_goes_on(begun, caplog):
    before = np.load(begun / "images.npy")
    begin_images(begun, SHAPE)
    assert np.flatnonzero(np.load(begun / "done.npy")).tolist() == [0, 1]
    assert np.array_equal(np.load(begun / "images.npy"), before)
    assert not caplog.text


@pytest.mark.parametrize("value", [7.5, 0.0, np.nan])
def test_images_that_are_not_what_was_written_are_attacked_again(begun, caplog, value):
    set_pixel(begun / "images.npy", value)
    begin_images(begun, SHAPE)
    assert np.flatnonzero(np.load(begun / "done.npy")).tolist() == [0]
    assert "images.npy': 1 of 2 images are damaged and are attacked again" in caplog.text


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda f: (f / "images.npy").write_bytes((f / "images.npy").read_bytes()[:-40]), "images.npy.damaged-1"),
        (lambda f: (f / "images.npy").write_bytes(b""), "images.npy.damaged-1"),
        (lambda f: (f / "done.npy").write_bytes(b"x"), "done.npy.damaged-1"),
        (lambda f: np.save(f / "images.npy", np.zeros((6, 1, 4, 4), np.float32)), "images.npy.damaged-1"),
        (lambda f: (f / "images.npy").unlink(), None),
    ],
)
def test_a_cut_or_foreign_set_in_the_making_starts_again(begun, caplog, damage, kept):
    damage(begun)
    begin_images(begun, SHAPE)
    assert np.load(begun / "images.npy").shape == SHAPE
    assert not np.load(begun / "done.npy").any()  # the images that were done are gone
    assert kept is None or (begun / kept).exists()
    assert (kept or "") in caplog.text


def test_other_files_are_no_set(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other files and no adversarial set"):
        open_set(tmp_path, MADE_WITH)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 3, "provenance": {}, "sha256": null}', "is of format 3, not 2"),
    ],
)
def test_damaged_manifests_are_refused(finished, manifest, message):
    (finished / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=f"manifest.json' {message}"):
        open_set(finished, MADE_WITH)


def test_images_that_are_gone_or_cut_are_refused(finished):
    content = (finished / "images.npy").read_bytes()
    (finished / "images.npy").write_bytes(content[:-10])
    with pytest.raises(UserError, match="images.npy' is missing, cut short or damaged"):
        open_set(finished, MADE_WITH)
    (finished / "images.npy").unlink()
    with pytest.raises(UserError, match="images.npy' is missing, cut short or damaged"):
        open_set(finished, MADE_WITH)


def test_the_hash_knows_every_weight_and_buffer():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = weights_hash(network.state_dict())
    assert weights_hash(network.state_dict()) == before
    network[1].running_mean += 1e-3
    after = weights_hash(network.state_dict())
    assert after != before
    with torch.no_grad():
        network[0].weight[0, 0] += 1e-6
    assert weights_hash(network.state_dict()) != after


@pytest.mark.usefixtures("quiet_figures")
def test_the_command_makes_reuses_and_refuses(train_run):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from robustforge.cli.adversarial_set import make

    conf = Path(__file__).resolve().parents[2] / "conf"
    run = train_run("defense=none", "model=lenet", "attack=none", "protocol.suites.all.attacks={fgsm: {}}")

    def command(*overrides):
        GlobalHydra.instance().clear()
        with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
            cfg = hydra_compose(
                "adversarial_set", [f"run={run.folder}", "attack=fgsm", "progress=false", "device=cpu", *overrides]
            )
        return make(cfg)

    folder = command("split=calibration")
    manifest = json.loads((folder / "manifest.json").read_text())
    images = np.load(folder / "images.npy")
    assert manifest["provenance"]["split"] == "calibration"
    assert len(images) == 64  # TINY's calibration images
    assert 0 <= images.min() <= images.max() <= 1
    written = (folder / "images.npy").stat().st_mtime_ns
    assert command("split=calibration") == folder
    assert (folder / "images.npy").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="threat"):
        command("split=calibration", "threat.eps=0.2")
    with pytest.raises(UserError, match="end_to_end"):
        command("surface=selector")
    with pytest.raises(UserError, match="calibration"):
        command("split=validation")
