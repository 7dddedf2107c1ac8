"""Budgets as fractions, wherever they stand."""

import pytest
from omegaconf import OmegaConf

from robustforge.config import tables
from robustforge.config.instantiate import build
from robustforge.config.numbers import with_numbers
from robustforge.config.places import settled
from robustforge.types import UserError


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [("threat.eps", "8/255", 8 / 255), ("dataset.eps", " 4 / 255", 4 / 255), ("attack.step_size", ".5/255", 0.5 / 255),
     ("threat.eps", "0.1", 0.1), ("attack.alpha", "1e1/1e2", 0.1)],
)  # fmt: skip
def test_a_fraction_is_a_number(key, text, value):
    cfg = OmegaConf.create({})
    OmegaConf.update(cfg, key, text)
    assert OmegaConf.select(with_numbers(cfg), key) == pytest.approx(value)
    assert OmegaConf.select(cfg, key) == text, "the caller's own is left alone"


@pytest.mark.parametrize(
    ("key", "text"), [("threat.eps", "abc"), ("threat.eps", "8/0"), ("inner.step_size", "a/b"),
                      ("defense.train_budgets.pgd", "big")],
)  # fmt: skip
def test_what_is_no_number_is_one_sentence(key, text):
    cfg = OmegaConf.create({})
    OmegaConf.update(cfg, key, text)
    with pytest.raises(UserError, match=f"{key} is '{text}': give a number"):
        with_numbers(cfg)


def test_other_texts_stay_as_they_are():
    cfg = OmegaConf.create({"path": "a/b", "date": "x/2024", "list": ["1/2", "a"], "none": None, "gone": "???"})
    plain = OmegaConf.to_container(cfg)
    assert OmegaConf.to_container(with_numbers(cfg)) == {**plain, "list": [0.5, "a"]}
    plain = OmegaConf.create({"a": "b/c"})
    assert with_numbers(plain) is plain


def test_the_table_says_what_is_a_text():
    """A part of an evaluation, and folders whose names are fractions."""
    texts = {"shard": "2/8", "run": "1/2", "trust": ["3/4"], "paths": {"store_dir": "1/3", "data_dir": None}}
    cfg = OmegaConf.create({**texts, "dataset": {"eps": "8/255", "path": "5/6"}})
    found = OmegaConf.to_container(with_numbers(cfg, tables.Evaluate))
    assert found == {**texts, "dataset": {"eps": pytest.approx(8 / 255), "path": "5/6"}}
    run = OmegaConf.create({"name": "1/2", "paths": {"output_dir": "1/2"}, "threat": {"eps": "1/2"}})
    found = OmegaConf.to_container(with_numbers(run, tables.Run))
    assert found == {"name": "1/2", "paths": {"output_dir": "1/2"}, "threat": {"eps": 0.5}}


def test_every_budget_of_a_composition(compose):
    cfg = settled(compose("defense=cae", "dataset.eps=2/255", "attack.step_size=1/255", "dataset=digits",
                          "+defense.train_budgets={fgsm: 6/255}",
                          "protocol.budgets=[{_target_: robustforge.types.Threat, norm: linf, eps: 3/255}]"))  # fmt: skip
    assert cfg.threat.eps == cfg.dataset.eps == pytest.approx(2 / 255)
    assert build(cfg.attack).step_size == pytest.approx(1 / 255)
    assert cfg.defense.train_budgets.fgsm == pytest.approx(6 / 255)
    assert build(cfg.protocol).budgets[0].eps == pytest.approx(3 / 255)
    assert build(compose("dataset=digits", "dataset.eps=2/255").dataset).eps == pytest.approx(2 / 255)
