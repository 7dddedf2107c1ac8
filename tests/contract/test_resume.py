"""A stage that dies continues where it was, and ends where it would have ended. In one process."""

import numpy as np
import pytest
from safetensors.torch import load_file

from robustforge.attacks.pgd import PGD
from robustforge.training.resume import ResumePoint

FIT = ("~debug", "protocol.n_test=8", "attack.steps=1", "model=lenet", "dataset.batch_size=16", "store.resume_every=0")


class Killed(BaseException):
    """Not an Exception, so that nothing tidies up."""


@pytest.mark.usefixtures("quiet_figures")
@pytest.mark.parametrize("at", ["after the write", "during the write"])
def test_a_fit_continues_to_the_same_weights(train_run, tmp_path, monkeypatch, at, caplog):
    run = ("defense=none", *FIT, "defense.training.epochs=4", "protocol.suites.all.attacks={fgsm: {}, bim: {steps: 1}}",
           "dataset.augment.crop=2")  # fmt: skip
    write = ResumePoint.on_train_epoch_end

    def deadly(self, trainer, module):
        if trainer.current_epoch == 1 and at == "during the write":
            self.path.with_suffix(".half").write_bytes(b"half a checkpoint")
            raise Killed
        write(self, trainer, module)
        if trainer.current_epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ResumePoint, "on_train_epoch_end", deadly)
        with pytest.raises(Killed):
            train_run(*run, name="killed")
    assert not list((tmp_path / "store").glob("undefended-*"))
    epochs = []

    def counting(self, trainer, module):
        epochs.append(trainer.current_epoch)
        write(self, trainer, module)

    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(ResumePoint, "on_train_epoch_end", counting)
        ours = train_run(*run, name="killed")
    assert epochs == ([2, 3] if at == "after the write" else [1, 2, 3])
    assert "continuing undefended from its last resume point" in caplog.text
    whole = train_run(*run, f"paths.store_dir={tmp_path / 'elsewhere'}", name="whole")

    def weights(store):
        (path,) = (tmp_path / store).glob("undefended-*/weights.safetensors")
        return load_file(path)

    one, two = weights("store"), weights("elsewhere")
    assert all(np.array_equal(one[key].numpy(), two[key].numpy()) for key in two)
    assert [cell | {"seconds": 0} for cell in ours.result["cells"]] == [
        c | {"seconds": 0} for c in whole.result["cells"]
    ]


@pytest.mark.usefixtures("quiet_figures")
def test_crafting_continues_where_it_was(train_run, tmp_path, monkeypatch):
    run = (
        "defense=memdef", *FIT, "selector=offline", "stack=short", "defense.memory_size=20",
        "dataset.eval_batch_size=16",
        "defense.undefended_training.epochs=1", "selector.training.epochs=1", "stack.settings.training.epochs=1",
        "selector.attack.steps=2", "evaluate=true", "protocol.suites.all.surfaces=[end_to_end]",
    )  # fmt: skip
    calls = []
    attack = PGD.__call__

    def counting(self, surface, x, y, threat, **rest):
        if threat.eps == 0.03:  # the offline selector's
            calls.append(len(x))
            if len(calls) == 3 and not resumed:
                raise Killed
        return attack(self, surface, x, y, threat, **rest)

    resumed = False
    monkeypatch.setattr(PGD, "__call__", counting)
    with pytest.raises(Killed):
        train_run(*run, name="killed")
    crafted, resumed = len(calls), True
    calls.clear()
    train_run(*run, name="killed")
    (images,) = (tmp_path / "store").glob("adversarial_set-*/images.npy")
    in_two_goes, validation = np.load(images), len(calls)
    calls.clear()
    train_run(*run, f"paths.store_dir={tmp_path / 'elsewhere'}", name="whole")
    (images,) = (tmp_path / "elsewhere").glob("adversarial_set-*/images.npy")
    assert np.array_equal(in_two_goes, np.load(images))
    assert len(calls) - validation == crafted - 1 == 2, "finished batches were crafted again"
