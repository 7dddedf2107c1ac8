"""Stages end to end on digits: made once, reused, keyed by everything, and the same after a kill."""

from dataclasses import dataclass
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from robustforge.attacks.fgsm import FGSM
from robustforge.attacks.pgd import PGD
from robustforge.data.augment import Augment
from robustforge.defenses.adversarial_training import AdversarialTraining
from robustforge.defenses.base import classify
from robustforge.defenses.gmvae import DetectorSettings, GaussianMixtureVAE, LabelSettings, ReclassificationSettings
from robustforge.defenses.memdef import MemoryDefense, SelectorSettings, StackSettings
from robustforge.defenses.mrr import FusionSettings, InputSettings, LatentSettings, ModularRobustRedundancy
from robustforge.defenses.none import PlainClassifier
from robustforge.defenses.robust_loss import AdversarialLoss
from robustforge.defenses.schedules import constant, cosine
from robustforge.defenses.stages import CalibrateStage, CraftStage, Training
from robustforge.nn.small_cnn import small_cnn
from robustforge.types import AttackResult, Threat, UserError

ADAM = partial(torch.optim.Adam, lr=3e-3)
MODEL = partial(small_cnn, shape=(1, 28, 28), num_classes=10, mean=(0.3,), std=(0.3,), widths=(4, 8), hidden=16)
INNER = PGD(steps=2, early_stop=False)


def with_dropout(width=16):
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, width),
        nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, 10),
    )  # fmt: skip


def training(epochs=1, **changed):
    return Training(**{"epochs": epochs, "optimizer": ADAM, "schedule": partial(cosine, warmup=0.2), **changed})


def plain(epochs=1, seed=0, model=MODEL, **changed):
    return PlainClassifier(model, training(epochs, **changed), seed)


def memdef(selector="pgd", slot="selector", attack=INNER, seed=0, robust=None, **changed):
    threat = Threat("linf", 0.1)
    return MemoryDefense(
        MODEL, SelectorSettings(selector, robust or training(), INNER, threat),
        StackSettings(training(), slot=slot, attack=attack, threat=threat), training(),
        **{"shape": (1, 28, 28), "num_classes": 10, "memory_size": 20, "seed": seed, **changed},
    )  # fmt: skip


class Killed(pl.Callback):
    """Raises in a given epoch, before a given batch, once; counts epochs."""

    def __init__(self, epoch=None, batch=1, error=RuntimeError):
        self.epoch, self.batch, self.error, self.epochs = epoch, batch, error, []

    def on_train_epoch_start(self, trainer, module):
        self.epochs.append(trainer.current_epoch)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise self.error("killed")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_made_once_then_reused(run, weights):
    fresh = weights(plain(8))
    first = run(plain(8))
    trained = weights(first.defense)
    assert [(r.name, r.reused) for r in first.reports] == [("undefended", False)]
    assert first.fits == ["undefended"]
    assert not same(fresh, trained)
    batch = next(first.data.batches("train"))
    right = first.defense(batch.x).logits.argmax(1) == batch.y
    assert right.float().mean() > 0.3  # it has learned, where guessing is right once in ten
    assert not any(m.training for m in first.defense.modules())
    assert not any(p.requires_grad for p in first.defense.parameters())
    second = run(plain(8))
    assert [(r.name, r.key, r.reused) for r in second.reports] == [("undefended", first.reports[0].key, True)]
    assert second.reports[0].made_in == first.reports[0].made_in, "what its training took, whichever run trained"
    assert first.reports[0].made_in > 0
    assert second.fits == []
    assert same(weights(second.defense), trained)
    third = run(plain(8), store="elsewhere")
    assert third.fits == ["undefended"]
    assert same(weights(third.defense), trained)


DATA_CHANGES = {
    "batch_size": 16, "limit_train": 80, "held_out": 100, "split_seed": 1, "augment": Augment(crop=2),
}  # fmt: skip


def test_other_data_is_another_product(run):
    keys = {run(plain()).reports[0].key}
    for name, value in DATA_CHANGES.items():
        report = run(plain(), **{name: value}).reports[0]
        assert not report.reused
        assert report.key not in keys
        keys.add(report.key)


def test_another_order_of_the_batches_is_another_product(run):
    run(plain())
    assert not run(plain(), seed=1).reports[0].reused


def test_other_settings_are_other_products(run):
    base = run(plain())
    defenses = [
        plain(2), plain(seed=1), plain(optimizer=partial(torch.optim.Adam, lr=4e-3)), plain(schedule=constant),
        plain(gradient_clip=1.0), plain(model=partial(MODEL, hidden=17)), plain(model=with_dropout),
    ]  # fmt: skip
    reports = [run(defense).reports[0] for defense in defenses]
    reports.append(run(plain(), limits={"limit_train_batches": 1}).reports[0])
    assert not any(report.reused for report in reports)
    assert len({base.reports[0].key, *(report.key for report in reports)}) == len(reports) + 1
    assert run(plain()).reports[0].reused


def test_evaluation_only_refuses_to_train(run):
    with pytest.raises(UserError, match=r"lacks this run's stage undefended.*train\.py"):
        run(plain(), only_reuse=True)
    run(plain())
    assert run(plain(), only_reuse=True).reports[0].reused


@pytest.mark.parametrize(("kind", "error"), [("plain", KeyboardInterrupt), ("adversarial", RuntimeError)])
def test_killed_and_continued_equals_unbroken_bit_for_bit(run, weights, kind, error):
    def defense():
        if kind == "plain":
            return plain(3, model=with_dropout)
        loss = AdversarialLoss(INNER, Threat("linf", 0.1), "trades")
        return AdversarialTraining(with_dropout, loss, training(3), training(1), warm_start=True)

    options = {"augment": Augment(crop=3, erasing=0.5)}
    stage = defense().stages()[-1].name
    unbroken = run(defense(), store="unbroken", **options)
    killed = Killed(1, error=error)  # in the last stage: the one before it has one epoch
    with pytest.raises((error, SystemExit)):
        run(defense(), callbacks=[killed], **options)
    continued_epochs = Killed()
    continued = run(defense(), callbacks=[continued_epochs], **options)
    assert continued_epochs.epochs == [1, 2]
    assert continued.fits == [stage]
    assert [r.reused for r in continued.reports] == [True] * (len(continued.reports) - 1) + [False]
    assert continued.reports[-1].key == unbroken.reports[-1].key
    assert same(weights(continued.defense), weights(unbroken.defense))


def test_killed_in_the_first_epoch_starts_again(run, weights):
    unbroken = run(plain(2, model=with_dropout), store="unbroken")
    with pytest.raises(RuntimeError, match="killed"):
        run(plain(2, model=with_dropout), callbacks=[Killed(0, 2)])
    counted = Killed()
    continued = run(plain(2, model=with_dropout), callbacks=[counted])
    assert counted.epochs == [0, 1]
    assert same(weights(continued.defense), weights(unbroken.defense))


def test_memory_defense_from_the_store(run, weights):
    first = run(memdef())
    assert first.fits == ["undefended", "selector", "stack"]
    again = run(memdef())
    assert again.fits == []
    assert all(report.reused for report in again.reports)
    assert same(weights(first.defense), weights(again.defense))
    batch = next(first.data.batches("test"))
    torch.testing.assert_close(first.defense(batch.x).logits, again.defense(batch.x).logits)


def test_what_a_change_remakes(run):
    run(memdef(slot="label", attack=None))
    for changed, fits in (
        (memdef(slot="label", attack=None, memory_size=30), ["stack"]),
        (memdef(slot="label", attack=None, surface_temperature=0.5), []),
        (memdef("clean", slot="label", attack=None), []),
        (memdef(slot="label", attack=None, robust=training(2)), ["selector"]),
        (memdef(slot="selector", attack=None), ["stack"]),  # another selector opens the slots
        (memdef(slot="selector", attack=FGSM()), ["stack"]),
        (plain(), []),
    ):
        assert run(changed).fits == fits


def test_a_stage_leaves_the_other_networks_alone(run, weights):
    seen = {}

    class Watch(pl.Callback):
        def on_train_start(self, trainer, module):
            seen[module.stage.name] = {
                name: weights(getattr(module, name)) for name in ("undefended", "selector", "stack")
            }
            modes = {name: getattr(module, name).training for name in ("undefended", "selector", "stack")}
            assert [name for name, mode in modes.items() if mode] == [module.stage.name]

    final = {
        name: weights(getattr(run(memdef(), callbacks=[Watch()]).defense, name)) for name in ("undefended", "selector")
    }
    assert same(seen["selector"]["undefended"], final["undefended"])
    assert same(seen["selector"]["selector"], final["undefended"])  # a copy to start from
    assert same(seen["stack"]["selector"], final["selector"])
    assert not same(final["selector"], final["undefended"])


def test_validation_is_on_held_out_images_and_logged_by_stage(run):
    logged = {}

    class Watch(pl.Callback):
        def on_validation_epoch_end(self, trainer, module):
            logged.update({k: float(v) for k, v in trainer.callback_metrics.items()})
            assert trainer.num_val_batches == [3]  # 96 held-out images in batches of 40

    run(memdef(), callbacks=[Watch()])
    for name in ("undefended/val/accuracy", "selector/val/robust_accuracy", "stack/val/wrong_slot_followed"):
        assert 0 <= logged[name] <= 1
    assert logged["selector/val/robust_accuracy"] <= logged["selector/val/accuracy"]


def gmvae(detector=None, labels=None, epochs=1):
    return GaussianMixtureVAE(
        MODEL, training(epochs), training(), (1, 28, 28), 10, DetectorSettings(shared=True, **detector or {}),
        ReclassificationSettings(), LabelSettings(**labels or {}), width=0.125,
    )  # fmt: skip


def test_thresholds_are_calibrated_once_on_held_out_images_only(run, weights):
    first = run(gmvae())
    assert [r.name for r in first.reports] == ["undefended", "gmvae", "thresholds"]
    assert first.fits == ["undefended", "gmvae"], "no Trainer is needed to calibrate"
    defense, held = first.defense, first.data.calibration
    x = held.images.float() / 255
    error = (defense(x).purified - x).square().flatten(1).sum(1)
    expected = (error.mean() + 3 * error.std(correction=0)).item()
    assert defense.detector.tau_decoder[0].item() == pytest.approx(expected, rel=1e-4)
    again = run(gmvae())
    assert all(report.reused for report in again.reports)
    assert same(weights(again.defense), weights(defense))
    other = run(gmvae({"decoder_std": 1.0}))
    assert [report.reused for report in other.reports] == [True, True, False]
    assert other.defense.detector.tau_decoder[0] < defense.detector.tau_decoder[0]


def test_semi_supervised_training_resumes_with_the_same_labels(run, weights):
    plan = {"per_class": 2}
    whole = run(gmvae(labels=plan, epochs=3), "whole")
    killed = Killed(epoch=2)
    with pytest.raises(RuntimeError, match="killed"):
        run(gmvae(labels=plan, epochs=3), "broken", callbacks=[_Only("gmvae", killed)])
    ours = run(gmvae(labels=plan, epochs=3), "broken")
    assert same(weights(ours.defense), weights(whole.defense))
    assert torch.bincount(ours.defense.pool.labels).tolist() == [2] * 10


class _Only(pl.Callback):
    """Lets another callback see one stage."""

    def __init__(self, stage, callback):
        self.stage, self.callback = stage, callback

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if module.stage.name == self.stage:
            self.callback.on_train_batch_start(trainer, module, batch, batch_idx)


class Pushed(PlainClassifier):
    """Crafts one set from another, and fits a buffer on a split of its choice."""

    def __init__(self, model, training, split):
        super().__init__(model, training)
        self.split = split
        self.seen = torch.nn.BatchNorm1d(1)  # some module with buffers

    def stages(self):
        def surface():
            return classify(self.undefended)["end_to_end"]

        threat, brighter = Threat("linf", 1.0), Brighter()
        return [
            *super().stages(),
            CraftStage("first", surface, brighter, threat, ("undefended",)),
            CraftStage("second", surface, brighter, threat, ("undefended", "first"), source="first"),
            CalibrateStage("count", ("seen",), self.count, ("second",), split=self.split),
        ]

    def count(self, batches):
        for batch in batches:
            self.seen.num_batches_tracked += len(batch.y)


@pytest.mark.parametrize("init", ["fresh", "victim"])
def test_a_victim_that_is_a_defense_comes_from_the_store(run, weights, init):
    def victim():
        return AdversarialTraining(MODEL, AdversarialLoss(INNER, Threat("linf", 0.1)), training(), training())

    def mrr(given):
        latent = LatentSettings(training(), push="none", init=init)
        return ModularRobustRedundancy(
            MODEL, 1, latent, InputSettings(), FusionSettings(), training(), (1, 28, 28), 10, victim=given
        )

    alone = run(victim())
    built = run(mrr(victim()))
    names = ["undefended", "classifier", "defender_1", "densities", "thresholds"]
    assert [(r.name, r.reused) for r in built.reports] == list(
        zip(names, [True, True, False, False, False], strict=True)
    )
    assert same(weights(built.defense.undefended), weights(alone.defense.classifier))
    clean = {report.name: report.key for report in run(mrr(None)).reports}
    keys = {report.name: report.key for report in built.reports}
    assert clean["undefended"] == keys["undefended"]
    others = names[4:] if init == "fresh" else names[2:]
    assert all(clean[name] != keys[name] for name in others), "what looks at another victim is another product"
    assert (clean["defender_1"] == keys["defender_1"]) == (init == "fresh"), "fresh defenders know of no victim"


@dataclass(frozen=True)
class Brighter:
    name: str = "brighter"

    def __call__(self, surface, x, y, threat, *, index=None, seed=0, threshold=None):
        return AttackResult((x + 0.25).clamp(max=1), x.new_zeros(len(x)).bool(), y, y)


@pytest.mark.parametrize(("split", "count"), [("train", 96), ("test", 32)])
def test_sets_may_build_on_sets_and_a_stage_may_see_one_split(run, split, count):
    once = Training(1, partial(torch.optim.SGD, lr=0.01), constant)
    done = run(Pushed(MODEL, once, split))
    keys = {report.name: report.key for report in done.reports}
    clean = done.data.train.images.float() / 255
    for name, step in (("first", 0.25), ("second", 0.5)):
        images = torch.from_numpy(np.array(done.store.find(name, keys[name]).load_images()))
        torch.testing.assert_close(images, (clean + step).clamp(max=1))
    assert int(done.defense.seen.num_batches_tracked) == count
    again = run(Pushed(MODEL, once, split))
    assert all(report.reused for report in again.reports)
    assert int(again.defense.seen.num_batches_tracked) == count
