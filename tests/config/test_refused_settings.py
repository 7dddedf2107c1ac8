"""Commands that cannot be meant: one sentence that names the setting, and not a file or folder of theirs."""

import math

import pytest
from omegaconf import OmegaConf, open_dict

from robustforge.cli import pipeline
from robustforge.config.places import settled
from robustforge.types import UserError

NAN, INF = math.nan, math.inf

# key, value: for a plain classifier on the digits
SETTINGS = [
    *[("seed", value) for value in (True, -1, 2**32, 1.5, "abc", None, [], NAN)],
    *[("evaluate", value) for value in ("maybe", 1, None, [])],
    *[("tags", value) for value in ("abc", 5, [1], {}, None)],
    *[("name", value) for value in (5, None, [], True)],
    *[("defense_name", value) for value in (5, None, [])],
    *[("paths.output_dir", value) for value in (5, None, [], True)],
    *[("paths.store_dir", value) for value in (5, None, {}, NAN)],
    *[("paths.data_dir", value) for value in (5, [], False)],
    *[("store.made_by_other_code", value) for value in ("warm", True, None, 3)],
    *[("logger.kind", value) for value in ("cvs", None, 1, [])],
    *[("logger.project", 5), ("logger.offline", "maybe"), ("logger.entity", []), ("logger.api_key", "abc")],
    *[("callbacks.mine", value) for value in (5, "abc", [], {})],
    *[("callbacks", value) for value in ("abc", 5, None)],
    *[("trainer.limit_train_batches", value) for value in ("abc", 0, -1, 1.5, NAN, True, [])],
    *[("trainer.limit_val_batches", value) for value in ("abc", -1, 1.5, {})],
    *[("trainer.fast_dev_run", value) for value in ("abc", -1, 1.5)],
    *[("trainer.log_every_n_steps", value) for value in ("abc", -1, 0.5)],
    *[("trainer.deterministic", value) for value in ("maybe", 1, [])],
    *[("trainer.num_nodes", value) for value in (0, "abc", 1.5)],
    *[("trainer.accumulate_grad_batches", value) for value in (0, -1, "abc", 1.5)],
    *[("trainer.enable_progress_bar", value) for value in ("maybe", 3)],
    *[("trainer.precision", value) for value in ("abc", "64-true", 7, True)],
    *[("trainer.accelerator", value) for value in ("abc", 5, [])],
    *[("trainer.strategy", value) for value in ("abc", 5, {})],
    *[("trainer.max_epoch", 3), ("trainer.gradient_clip_algorithm", "abc"), ("trainer.benchmark", "abc")],
    *[("trainer", value) for value in (5, "abc", None, {}, [])],
    *[("optimizer.lr", value) for value in (0, -0.1, "abc", NAN, INF, True, None, [])],
    *[("optimizer.betas", value) for value in ([0.9], [0.9, 1], "abc", [0.9, -1])],
    *[("optimizer.weight_decay", value) for value in (-1, "abc", NAN)],
    *[("optimizer.amsgrad", "abc"), ("optimizer.learning_rate", 0.1), ("optimizer", "adam")],
    *[("scheduler.warmup", value) for value in (-0.1, 1, 2, "abc", NAN)],
    *[("scheduler.warmpu", 0.1), ("scheduler", "cosine"), ("scheduler", 5)],
    *[("threat.eps", value) for value in (-1, INF, NAN, "abc", "8/0", [], True)],
    *[("threat.norm", value) for value in ("linff", "l3", 2, None)],
    *[("attack.steps", value) for value in (2.5, 0, -1, "abc", NAN, True, [])],
    *[("attack.step_size", value) for value in (-1, "abc", NAN)],
    *[("attack.restarts", 0), ("attack.loss", "margn"), ("attack.precision", "half"), ("attack.early_stop", "maybe")],
    *[("attack.target", value) for value in ("nxt", -1, 1.5, True)],
    *[("attack.stps", 3), ("attack.name", 5), ("attack", "pgd"), ("attack", [])],
    *[("model.widths", value) for value in ([], [0], [-1, 2], "abc", 5, [1.5])],
    *[("model.hidden", value) for value in (0, -1, 1.5, "abc")],
    *[("model.shape", value) for value in ([], [28, 28], "abc", [1, 28, 0])],
    *[("model.num_classes", value) for value in (1, 0, "abc", 2.5)],
    *[("model.batch_norm", "abc"), ("model.std", [0]), ("model.mean", ["a"]), ("model", "small_cnn"), ("model", None)],
    *[("dataset.batch_size", value) for value in (0, -1, 1.5, "abc", True, None)],
    *[("dataset.num_classes", value) for value in (0, 1, -1, 2.5, "abc")],
    *[("dataset.shape", value) for value in ([], [28, 28], "abc", [1, 28, 0], [28, 28, 1], 5)],
    *[("dataset.mean", value) for value in ([2], "abc", [], [0.1, 0.2], [NAN])],
    *[("dataset.std", value) for value in ([0], [-1], "abc", [])],
    *[("dataset.eps", value) for value in ("abc", -1, NAN, [])],
    *[("dataset.kind", value) for value in (5, None)],
    *[("dataset.held_out", value) for value in (-1, "abc", 1.5)],
    *[("dataset.limit_train", value) for value in (0, -1, "abc", 1.5)],
    *[("dataset.download", "maybe"), ("dataset.sha256", 5), ("dataset.path", 5), ("dataset.batchsize", 5)],
    *[("dataset.augment.crop", value) for value in (-1, 1.5, "abc")],
    *[("dataset.augment.erasing", 2), ("dataset.augment.flip", "abc"), ("dataset.augment.erasing_area", [0.5, 0.1])],
    *[("dataset.augment", "abc"), ("dataset", "digits"), ("dataset", None)],
    *[("protocol.budgets", value) for value in ([], "abc", [0.1], None, [None])],
    *[("protocol.n_test", value) for value in (0, -1, 1.5, "abc")],
    *[("protocol.pictures", value) for value in ("maybe", 1, None)],
    *[("protocol.false_positive_rate", value) for value in (-0.1, 1, "abc", NAN)],
    *[("protocol.false_positive_rates", value) for value in ([2], "abc", 0.1)],
    *[("protocol.memory_gb", value) for value in (0, -1, "abc", INF)],
    *[("protocol.checks_n", 0), ("protocol.strict", "abc"), ("protocol.threshold", "abc"), ("protocol.main", "pgd")],
    *[("protocol.suites", "abc"), ("protocol.suites.all", 5), ("protocol.suites.all.attacks", "pgd")],
    *[("protocol.suites.all.surfaces", value) for value in ("abc", [5])],
    *[("protocol.suites.all.attacks.pgd.steps", 2.5), ("protocol.suites.all.budgets", [])],
    *[("protocol", "smoke"), ("protocol", None), ("defense", None), ("defense", "none"), ("defense", {})],
    *[("defense.training.epochs", value) for value in (0, 1.5, "abc", NAN, True, None)],
    *[("defense.training.gradient_clip", value) for value in (-1, 0, "abc", NAN)],
    *[("defense.training.epoch", 3), ("defense.training", 5), ("defense.training.schedule", "cosine")],
    *[("defense.sede", 1), ("defense.model", "small_cnn"), ("defense._target_", "robustforge.nowhere.X")],
    *[("defense._target_", value) for value in ("os", 5, "", "os.system", "robustforge.types.UserErrorr")],
    *[("sede", 3), ("evalute", False)],
]  # fmt: skip

# what only the objects know together: overrides, and a word of the sentence
TOGETHER = [
    ({"optimizer._target_": "torch.optim.SGD", "optimizer.nesterov": True}, "Nesterov"),
    ({"defense.training.schedule._target_": "math.log", "defense.training.schedule": {"_partial_": True}}, "schedule"),
    ({"attack._target_": "robustforge.attacks.apgd.APGD", "attack.give_up": True}, "give_up"),
    ({"attack._target_": "robustforge.attacks.fmn.FMN", "attack.final_gamma": 0.5}, "final_gamma"),
    ({"attack._target_": "robustforge.attacks.jsma.JSMA", "attack.theta": 0}, "theta"),
    ({"protocol.threshold": 1.0, "protocol.false_positive_rate": 0.1}, "threshold"),
    ({"dataset.shape": [1, 2, 2]}, "pixels"),
    ({"optimizer": {}}, "optimizer"),
    ({"threat.eps": 1.5}, "threat.eps"),
    ({"attack.target": 10}, "target=10"),
    ({"attack.name": "worst_case"}, "attack.name"),
    ({"model.widths": [8, 8, 8, 8, 8]}, "pixels"),
    ({"dataset.num_classes": 5}, "dataset.num_classes"),
    ({"dataset.kind": "npzz"}, "did you mean 'npz'"),
    ({"protocol.suites.all.surfaces": ["nowhere"]}, "the surface nowhere"),
]  # fmt: skip


@pytest.fixture(scope="module")
def base(compose):
    return compose("defense=none", "debug=fast", "logger=wandb", "logger.kind=csv", "trainer.enable_progress_bar=false")


@pytest.fixture
def refusal(base, tmp_path):
    """refusal({key: value}): the sentence with which a run with these settings is refused."""

    def call(settings):
        cfg = base.copy()
        with open_dict(cfg):
            cfg.paths.output_dir, cfg.paths.store_dir = str(tmp_path / "outputs"), str(tmp_path / "store")
            for key, value in settings.items():
                OmegaConf.update(cfg, key, value, merge=False, force_add=True)
        with pytest.raises(UserError) as caught:
            pipeline.train(cfg, tmp_path / "run")
        assert not list(tmp_path.iterdir())
        return str(caught.value)

    return call


def is_sentence(text):
    return "\n" not in text and text[-1] in ".?" and "Traceback" not in text and len(text) < 900


@pytest.fixture(scope="module")
def plain(base):
    return OmegaConf.to_container(settled(base))


@pytest.mark.parametrize(("key", "value"), SETTINGS, ids=lambda part: str(part).replace("/", "_"))
def test_a_value_that_cannot_be_meant_is_refused(plain, key, value):
    cfg = OmegaConf.create(plain)
    OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    with pytest.raises(UserError) as caught:
        pipeline.assemble(cfg)
    text = str(caught.value)
    assert is_sentence(text)
    leaf = key.rsplit(".", 1)[-1]
    assert leaf in text


@pytest.mark.parametrize(("settings", "word"), TOGETHER, ids=lambda part: str(part)[:40])
def test_values_that_do_not_fit_together_are_refused(refusal, settings, word):
    text = refusal(settings)
    assert is_sentence(text)
    assert word in text


def test_there_are_many():
    assert len(SETTINGS) + len(TOGETHER) >= 250


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attack.steps": 2.5}, "attack.steps is 2.5: give a whole number of at least 1."),
        ({"threat.norm": "linff"}, "threat.norm is 'linff': give linf, l2, l1, l0 or l0_pixels (did you mean 'linf'?)."),
        ({"attack.loss": "margn"}, "attack.loss is 'margn': give cross_entropy or margin (did you mean 'margin'?)."),
        ({"evaluate": "maybe"}, "evaluate is 'maybe': give true or false."),
        ({"seed": True}, "seed is true: give a whole number in [0, 4294967295]."),
        ({"optimizer.betas": [0.9]}, "optimizer.betas is [0.9]: give a list of 2, each a number in [0, 1)."),
        ({"sede": 3}, "There is no setting sede (did you mean 'seed'?)."),
        ({"model.widths": []}, "model.widths is []: give a list of 1 or more, each a whole number of at least 1."),
    ],
)  # fmt: skip
def test_the_sentence_says_what_to_give(refusal, settings, said):
    assert refusal(settings) == said


def test_pictures_may_be_left_out(base, tmp_path, quiet_figures):
    """protocol.pictures=false is a value: nothing is attacked once more for figures."""
    cfg = base.copy()
    with open_dict(cfg):
        cfg.paths.output_dir, cfg.paths.store_dir = str(tmp_path), str(tmp_path / "store")
        cfg.protocol.pictures, cfg.dataset.limit_train, cfg.callbacks.progress = False, 64, None
    pipeline.train(cfg, tmp_path / "run")
    assert (tmp_path / "run" / "result.json").exists()
    assert not list((tmp_path / "run").rglob("gallery*"))
