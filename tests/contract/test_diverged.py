"""A product is stored only if it is finite."""

import pytest

from robustforge.training.runner import StageRunner

FEW = (
    "defense=none", "dataset=digits", "dataset.limit_train=96", "dataset.batch_size=16", "evaluate=false",
    "trainer.enable_progress_bar=false", "trainer.precision=32-true", "store.resume_every=0",
)  # fmt: skip


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_that_diverges_stores_nothing_and_says_where(command, tmp_path, optimizer):
    places = f"paths.output_dir={tmp_path / 'out'}", f"paths.store_dir={tmp_path / 'store'}"
    for _ in range(2):  # nothing was left that a second call would reuse
        answer = command(*FEW, f"optimizer={optimizer}", "optimizer.lr=1e8", "defense.training.epochs=30", *places)
        assert answer.code == 1, answer.err
        (line,) = [line for line in answer.err.splitlines() if line.startswith("Error:")]
        assert "diverged in stage undefended, epoch" in line
        assert "cross_entropy" in line or "weights" in line
        assert "optimizer.lr" in line
        assert "Traceback" not in answer.err
        assert not list((tmp_path / "store").glob("undefended-*"))
    for path in (tmp_path / "store" / ".partial").rglob("resume.ckpt"):  # the last good epoch, where there was one
        import torch

        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(value.isfinite().all()) for value in state.values())


def test_a_product_that_is_not_finite_is_refused(train_run, monkeypatch):
    """Also where no loss told: a calibration or a last step that breaks the weights."""
    from robustforge.types import DivergedError

    made = StageRunner._make

    def broken(self, stage, defense, key, artifacts):
        fit = defense.leave
        monkeypatch.setattr(defense, "leave", lambda: (next(defense.parameters()).data.fill_(float("inf")), fit()))
        return made(self, stage, defense, key, artifacts)

    monkeypatch.setattr(StageRunner, "_make", broken)
    with pytest.raises(DivergedError, match="NaN, infinite"):
        train_run("defense=none")
