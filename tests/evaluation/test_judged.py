"""Choices are made on held-out training images: which images are judged, and that a choice trains nothing again."""

import json

import pytest
import torch

from robustforge.cli import pipeline
from robustforge.data.datamodule import ImageData
from robustforge.evaluation.judged import judged_on
from robustforge.types import UserError


@pytest.fixture
def data():
    found = ImageData("digits", "digits", (1, 28, 28), 10)
    found.setup()
    return found


def images(split):
    return {row.numpy().tobytes() for row in split.images}


def test_held_out_images_are_judged_and_their_other_half_fits_the_thresholds(data):
    judged = judged_on(data, "calibration")
    assert not images(judged.test) & images(judged.calibration)
    assert images(judged.test) | images(judged.calibration) == images(data.calibration)
    assert abs(len(judged.test) - len(judged.calibration)) <= 1
    assert not images(judged.test) & images(data.train)
    first = data.calibration
    assert torch.equal(judged.test.images, first.images[1::2])
    assert torch.equal(judged.test.labels, first.labels[1::2]), "with their labels"


def test_the_data_that_was_trained_on_stays_as_it_is(data):
    before = data.fingerprint, data.test, data.calibration
    judged = judged_on(data, "calibration")
    assert (data.fingerprint, data.test, data.calibration) == before
    assert len({data.fingerprint, judged.fingerprint, judged_on(data, "train").fingerprint}) == 3
    assert judged_on(data, "train").test is data.train
    assert judged_on(data, "test") is data


def test_mistakes_are_sentences(data):
    with pytest.raises(UserError, match="no split 'valid': choose one of train, calibration, test"):
        judged_on(data, "valid")
    none = ImageData("digits", "digits", (1, 28, 28), 10, held_out=0)
    none.setup()
    with pytest.raises(UserError, match=r"dataset\.held_out"):
        judged_on(none, "calibration")


@pytest.mark.usefixtures("quiet_figures")
def test_a_choice_and_the_result_share_what_was_trained(tmp_path, compose):
    def run(*more):
        cfg = compose("defense=none", "dataset=digits", "defense.training.epochs=1", "attack.steps=2", "protocol=smoke",
                      "trainer.enable_progress_bar=false", f"paths.output_dir={tmp_path}",
                      f"paths.store_dir={tmp_path / 'store'}", *more)  # fmt: skip
        folder = tmp_path / "-".join(["run", *more])
        pipeline.train(cfg, folder)
        text = (folder / "result.md").read_text()
        return json.loads((folder / "result.json").read_text()), text

    choice, said = run("split=calibration")
    result, told = run()
    assert [stage["reused"] for stage in choice["stages"]] == [False]
    assert [stage["reused"] for stage in result["stages"]] == [True]
    assert (choice["split"], result["split"]) == ("calibration", "test")
    assert choice["depends"] != result["depends"]
    assert "on held-out training images" in said
    assert "held-out" not in told
    assert choice["n_test"] != result["n_test"]
