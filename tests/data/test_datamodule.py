"""The data module alone and under a Trainer."""

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from robustforge.data.augment import Augment
from robustforge.data.datamodule import ImageData
from robustforge.types import Batch, UserError

DIGITS = {"name": "digits", "kind": "digits", "shape": (1, 28, 28), "num_classes": 10}


def make(**changed):
    return ImageData(**{**DIGITS, "limit_train": 64, "limit_test": 20, "batch_size": 16, **changed})


class Recorder(L.LightningModule):
    """Notes what it is given."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.validated, self.stop_after = [], [], stop_after

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, batch))
        if self.stop_after == len(self.seen):
            raise RuntimeError("killed")
        return self.weight.sum() * 0

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, module, folder, epochs=3, ckpt_path=None, callbacks=()):
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module


def test_splits_without_a_trainer():
    data = ImageData(**DIGITS)
    data.setup()
    assert (len(data.train), len(data.calibration), len(data.test)) == (1294, 143, 360)
    pixels = torch.cat([data.train.images, data.calibration.images]).flatten(1)
    # Digits has no duplicate images, so a repeated row would be a shared one.
    assert len(pixels.unique(dim=0)) == 1437
    train = data.train
    data.setup("fit")
    assert data.train is train


def test_fingerprint_names_the_data_and_the_split():
    def of(**changed):
        data = make(**changed)
        data.setup()
        return data.fingerprint

    assert of() == of(batch_size=8, seed=3)
    assert len({of(), of(split_seed=1), of(held_out=100), of(limit_train=32), of(limit_test=10)}) == 5


def test_batches_are_plain_pixels_in_order():
    data = make(augment=Augment(flip=True, erasing=1.0))
    batches = list(data.batches("test", batch_size=8))
    assert [len(b.y) for b in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([b.index for b in batches]), torch.arange(20))
    x = torch.cat([b.x for b in batches])
    assert x.dtype == torch.float32
    assert torch.equal((x * 255).round().to(torch.uint8), data.test.images)
    with pytest.raises(UserError, match="choose one of train, calibration, test"):
        next(data.batches("validation"))


def archive(folder, x_test=None, labels=10):
    """An archive of 8-bit training images and whatever test images, with its path."""
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), dtype=np.uint8)
    x_test = x[:20] if x_test is None else x_test
    np.savez(
        folder / "own.npz", x_train=x, y_train=np.arange(40) % labels, x_test=x_test, y_test=np.arange(20) % labels
    )
    return {"name": "npz", "kind": "npz", "shape": (1, 6, 6), "path": folder / "own.npz"}


def test_float_images_reach_every_batch_unrounded(tmp_path):
    x = np.random.default_rng(1).random((20, 1, 6, 6), dtype=np.float32)
    data = make(**archive(tmp_path, x), limit_train=None)
    assert torch.equal(torch.cat([b.x for b in data.batches("test", 8)]), torch.from_numpy(x))
    assert torch.equal(data.test.pixels(), torch.from_numpy(x))
    assert torch.equal(data.test.pixels(torch.tensor([3, 1])), torch.from_numpy(x[[3, 1]]))
    for batch in data.batches("test"):
        batch.x.zero_()
    data.test.pixels(slice(5)).zero_()
    assert torch.equal(data.test.images, torch.from_numpy(x))  # batches are copies: writing into one spoils nothing
    assert data.train.images.dtype == torch.uint8
    assert torch.equal(data.train.pixels(slice(4)), data.train.images[:4].float() / 255)


def test_float_images_can_be_trained_on(tmp_path):
    x = np.random.default_rng(1).random((40, 1, 6, 6), dtype=np.float32)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=np.arange(40) % 10, x_test=x, y_test=np.arange(40) % 10)
    own = {"name": "npz", "kind": "npz", "shape": (1, 6, 6), "path": tmp_path / "own.npz", "limit_train": None}
    data = make(**own)
    module = fit(data, Recorder(), tmp_path, epochs=1)
    for _, _, batch in module.seen:
        assert torch.equal(batch.x, data.train.images[batch.index])
    assert len(data.train) + len(data.calibration) == 40
    pixels = torch.cat([data.train.images, data.calibration.images])
    assert torch.equal(pixels.flatten(1).sum(1).sort().values, torch.from_numpy(x).flatten(1).sum(1).sort().values)


def test_fingerprint_tells_a_small_perturbation(tmp_path):
    x = np.random.default_rng(1).random((20, 1, 6, 6), dtype=np.float32)
    found = set()
    for shift in (0, 1e-5):
        data = make(**archive(tmp_path, x * np.float32(0.9) + np.float32(shift)), limit_train=None)
        data.setup()
        found.add(data.fingerprint)
    assert len(found) == 2


def test_declared_classes_need_training_images(tmp_path, caplog):
    own = archive(tmp_path, labels=7)
    with pytest.raises(UserError, match=r"of 7 classes .* set dataset.num_classes=7; or keep .*dataset.limit_train=40"):
        make(**own, limit_train=None).prepare_data()
    make(**own, limit_train=40).setup()
    assert "class 7 has none" in caplog.text
    make(**own, limit_train=None, num_classes=7).setup()


def test_batches_are_sharded_over_ranks(monkeypatch):
    monkeypatch.setattr("robustforge.data.datamodule._ranks", lambda: (1, 3))
    assert torch.cat([b.index for b in make().batches("test")]).tolist() == list(range(1, 20, 3))
    assert torch.cat([b.index for b in make().batches("test", shard=False)]).tolist() == list(range(20))


def test_training_under_a_trainer_augments_and_validation_does_not(tmp_path):
    data = make(augment=Augment(crop=3))
    module = fit(data, Recorder(), tmp_path, epochs=2)
    assert [(e, i) for e, i, _ in module.seen] == [(e, i) for e in range(2) for i in range(4)]
    for epoch in range(2):
        index = torch.cat([b.index for e, _, b in module.seen if e == epoch])
        assert torch.equal(index.sort().values, torch.arange(64))
    batch = module.seen[0][2]
    assert isinstance(batch, Batch)
    assert torch.equal(batch.y, data.train.labels[batch.index])
    assert not torch.equal(batch.x, data.train.images[batch.index] / 255)
    clean = module.validated[0]
    assert torch.equal(clean.x, data.calibration.images[clean.index] / 255)


def test_adversarial_partner_shares_the_augmentation(tmp_path):
    data = make(augment=Augment(crop=3, flip=True, erasing=1.0))
    data.setup()
    data.adversarial = data.train.images.float().div(255).mul(0.5).numpy()
    module = fit(data, Recorder(), tmp_path, epochs=1)
    for _, _, batch in module.seen:
        assert torch.allclose(batch.x_adv, batch.x * 0.5)
        assert batch.x_adv.shape == batch.x.shape


def test_erasing_can_be_left_out(tmp_path):
    whole, without, erased = (fit_augmented(tmp_path, e, on) for e, on in ((0.0, True), (1.0, False), (1.0, True)))
    assert torch.equal(whole, without)
    assert not torch.equal(whole, erased)


def fit_augmented(folder, erasing, on):
    """The first training batch under crops and flips, with erasing switched on or off."""
    data = make(augment=Augment(crop=3, flip=True, erasing=erasing))
    data.erasing = on
    return fit(data, Recorder(), folder, epochs=1).seen[0][2].x


@pytest.mark.parametrize("save_after", [4, 6])
def test_a_killed_run_resumes_with_the_same_batches(tmp_path, save_after):
    augment = Augment(crop=3, flip=True)
    whole = fit(make(augment=augment, seed=2), Recorder(), tmp_path).seen
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=save_after, save_top_k=-1)
    with pytest.raises(RuntimeError, match="killed"):
        fit(make(augment=augment, seed=2), Recorder(stop_after=save_after + 1), tmp_path, callbacks=[saver])
    checkpoint = tmp_path / f"step={save_after}.ckpt"
    resumed = fit(make(augment=augment, seed=2), Recorder(), tmp_path, ckpt_path=checkpoint).seen
    assert len(resumed) == len(whole) - save_after
    for (epoch, number, batch), (old_epoch, old_number, old) in zip(resumed, whole[save_after:], strict=True):
        assert (epoch, number) == (old_epoch, old_number)
        assert torch.equal(batch.index, old.index)
        assert torch.equal(batch.x, old.x)


def test_one_statistic_serves_all_channels():
    data = ImageData("x", "npz", (3, 8, 8), 10, mean=[0.5], std=[0.25])
    assert (data.mean, data.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shape": (28, 28)}, "dataset.shape is"),
        ({"shape": (28, 28, 1)}, "channels last"),
        ({"num_classes": 1}, "dataset.num_classes is 1"),
        ({"num_classes": 2.5}, "dataset.num_classes is 2.5"),
        ({"mean": (33.3,)}, "dataset.mean is"),
        ({"mean": (0.1, 0.2)}, "dataset.mean has 2 values"),
        ({"std": (0.0,)}, "dataset.std is"),
        ({"batch_size": 0}, "dataset.batch_size is 0"),
        ({"limit_train": 0}, "dataset.limit_train is 0"),
        ({"held_out": -1}, "dataset.held_out"),
    ],
)
def test_values_out_of_range_are_refused_at_construction(changed, message):
    with pytest.raises(UserError, match=message):
        make(**changed)


def test_mapped_image_folder_is_split_without_touching_the_cache(tmp_path):
    from PIL import Image

    for part in ("train", "val"):
        for name in ("ape", "bee"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(10):
                Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / part / name / f"{i}.png")
    fingerprints, cached = set(), set()
    for _ in range(2):
        data = ImageData("own", "imagefolder", (3, 8, 8), 2, path=tmp_path)
        data.setup()
        assert (len(data.train), len(data.calibration)) == (18, 2)
        fingerprints.add(data.fingerprint)
        cached.add(b"".join(p.read_bytes() for p in sorted((tmp_path / ".robustforge-cache").iterdir())))
    assert len(fingerprints) == len(cached) == 1
