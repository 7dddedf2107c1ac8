"""Evaluation-time settings of a trained defense, and a folder of their own for them."""

import pytest
from omegaconf import OmegaConf

from robustforge.cli import evaluate


@pytest.fixture
def asked(tmp_path, monkeypatch):
    trained = {
        "defense": {"n_defenders": 4, "fusion": {"mode": "or", "security_parameter": 0.01}}, "dataset": {"eps": 0.1},
        "threat": {}, "attack": {}, "protocol": {}, "paths": {"data_dir": "", "store_dir": str(tmp_path)},
        "trainer": {"devices": 1}, "logger": {"kind": "csv"},
    }  # fmt: skip
    OmegaConf.save(OmegaConf.create(trained), tmp_path / "config.yaml")
    calls = []
    monkeypatch.setattr(evaluate, "evaluate_run", lambda cfg, out, *_, **__: calls.append((cfg, out)))

    def call(**defense):
        evaluate._evaluate(OmegaConf.create({
            "run": str(tmp_path), "defense": defense, "dataset": {"eps": None, "path": None}, "threat": {"eps": 0.2}, "attack": {},
            "protocol": {"name": "mrr"}, "seed": 0, "split": "test", "paths": {"data_dir": "", "store_dir": None}, "device": "cpu",
            "progress": False, "overwrite": False, "store": {"made_by_other_code": "warn"}, "trust": [],
            "shard": None, "merge": False, "export": None, "export_eps": None,
        }))  # fmt: skip
        return calls[-1]

    return call


def test_the_security_parameter_of_a_trained_system_may_be_changed(asked):
    plain, first = asked()
    changed, second = asked(fusion={"security_parameter": 0.05})
    assert plain.defense.fusion == {"mode": "or", "security_parameter": 0.01}
    assert changed.defense == {"n_defenders": 4, "fusion": {"mode": "or", "security_parameter": 0.05}}
    assert first != second, "their results lie side by side"
