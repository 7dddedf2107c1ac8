"""Networks that answer at random: found out, said everywhere, attacked on average, whatever the batch size."""

import json
from dataclasses import replace

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from noisy_net import Noisy
from torch import nn

from robustforge.attacks.core.surface import eot, fooled
from robustforge.attacks.noise import Noise
from robustforge.attacks.pgd import PGD
from robustforge.attacks.torchattacks import TorchAttack
from robustforge.cli import pipeline
from robustforge.defenses.base import Defense, classify
from robustforge.evaluation.drawing import answers_at_random
from robustforge.evaluation.protocol import Protocol, Suite
from robustforge.evaluation.runner import Evaluation
from robustforge.indicators.verdict import UNAVERAGED
from robustforge.reporting.result import make_result
from robustforge.reporting.tables import markdown_run
from robustforge.types import DefenseOutput, Threat, UserError

SMALL = Threat("linf", 0.05)


class Random(Defense):
    def __init__(self, body, std):
        super().__init__()
        self.network = Noisy(body, std)

    def forward(self, x):
        return DefenseOutput(self.network(x))

    def systems(self):
        return {"undefended": classify(self.network.body)}


def test_random_answers_are_found(defense, data):
    x, y = data.test.images[:4].float() / 255, data.test.labels[:4]
    before = torch.get_rng_state()
    still = classify(defense.body)["end_to_end"]
    assert not answers_at_random(still, x, y)
    assert not answers_at_random(replace(still, system=lambda x, _: DefenseOutput(1e6 * defense.body(x))), x, y)
    assert answers_at_random(classify(Noisy(defense.body, 0.05))["end_to_end"], x, y)
    dropped = nn.Sequential(defense.body, nn.Dropout(0.5))
    assert not answers_at_random(classify(dropped)["end_to_end"], x, y)  # off in eval mode
    always = replace(still, system=lambda x, _: DefenseOutput(torch.dropout(defense.body(x), 0.2, True)))
    assert answers_at_random(always, x, y)
    risky = replace(still, system=lambda x, _: DefenseOutput(defense.body(x), torch.rand(len(x))))
    assert answers_at_random(risky, x, y)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def run(defense, data, tmp_path, monkeypatch):
    def call(system, protocol, size, name):
        monkeypatch.setattr(data, "eval_batch_size", size)
        made = Evaluation(
            "random", system, data, protocol, tmp_path / name, tmp_path / name, {}, torch.device("cpu"), True
        )
        torch.manual_seed(len(name))  # whatever was drawn before
        return made, pq.read_table(made.run()[0])

    return call


def test_numbers_do_not_depend_on_the_batch_size_setting(run, defense, caplog):
    protocol = Protocol("p", {"all": Suite({"pgd": PGD(steps=3), "noise": Noise()})}, [SMALL], n_test=40)
    system = Random(defense.body, 0.5)
    (one, first), (_, second) = run(system, protocol, 100, "a"), run(system, protocol, 7, "bb")
    assert one.random_systems == ["random"]
    assert "random answers at random" in caplog.text
    assert "surface eot" in caplog.text
    columns = ["system", "attack", "surface", "index", "prediction", "success", "linf", "l2", "forwards", "backwards"]
    first, second = (table.filter(pc.equal(table["system"], "random")) for table in (first, second))
    assert first.select(columns).equals(second.select(columns))
    assert {"end_to_end", "eot"} <= set(first["surface"].to_pylist())  # every surface, so the averaged one too
    # on clean images, what is recorded is the answer that success was judged by
    clean = first.filter(pc.equal(first["attack"], "clean"))
    assert pc.not_equal(clean["prediction"], clean["label"]).equals(clean["success"])


def test_it_is_said_in_result_and_table(run, defense):
    def result(suite, strict=True):
        protocol = Protocol("p", {"all": suite}, [SMALL], n_test=30, strict=strict)
        made, records = run(Random(defense.body, 0.5), protocol, 20, "said")
        meta = {"defense": "random", "strict": strict, "norm": "linf", "eps": 0.05}
        return make_result(records, meta | {"random_systems": made.random_systems})

    alone = result(Suite({"pgd": PGD(steps=3)}, ["end_to_end"]))
    worst = {cell["system"]: cell for cell in alone["worst_case"]}
    assert UNAVERAGED in worst["random"]["violated"]
    assert UNAVERAGED not in worst["undefended"]["violated"]
    assert alone["random_systems"] == ["random"]
    text = markdown_run(alone)
    assert "random answers at random: use the surface eot" in text
    assert UNAVERAGED in text
    averaged = result(Suite({"pgd": PGD(steps=3)}, ["end_to_end", "eot"]))
    worst = {cell["system"]: cell for cell in averaged["worst_case"]}
    assert UNAVERAGED not in worst["random"]["violated"]
    assert "answers at random: use" in markdown_run(averaged)
    assert "answers at random: use" in markdown_run(result(Suite({"pgd": PGD(steps=3)}, ["end_to_end"]), strict=False))


def test_eot_is_offered():
    end = classify(nn.Identity())["end_to_end"]
    every, named = Protocol("p", {"a": Suite({"x": PGD()})}, [SMALL]), Suite({"x": PGD()}, ["eot"])

    def surfaces(protocol, own, random=()):
        return {cell.surface.name: cell.surface.draws for cell in protocol.cells("d", own, {}, random) if cell.attack}

    assert surfaces(every, {"end_to_end": end}) == {"end_to_end": 1}
    assert surfaces(every, {"end_to_end": end}, ["d"]) == {"end_to_end": 1, "eot": 16}
    assert surfaces(every, {"end_to_end": end}, ["undefended"]) == {"end_to_end": 1}
    assert surfaces(every, {"end_to_end": end, "eot": eot(end, 3)}, ["d"]) == {"end_to_end": 1, "eot": 3}
    assert surfaces(Protocol("p", {"a": named}, [SMALL]), {"end_to_end": end}) == {"eot": 16}
    with pytest.raises(UserError, match="eot"):  # a purifier with a single draw has no such surface
        surfaces(Protocol("p", {"a": named}, [SMALL]), {"end_to_end": end, "fixed_noise": end})


def test_the_adaptive_protocol_attacks_drawn_noise_known_and_unknown(compose):
    job = pipeline.assemble(compose("defense=cae", "defense.infer_noise=true", "protocol=adaptive"))
    cells = job.protocol.cells("cae", job.defense.surfaces(), job.defense.systems())
    attacked = {cell.surface.name: cell.surface.draws for cell in cells if cell.system == "cae" and cell.attack}
    assert attacked.keys() >= {"end_to_end", "fixed_noise", "eot"}
    assert attacked["eot"] > 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["attack=torchattacks/AutoAttack", "dataset.num_classes=3"], "at least 4 classes, and there are 3"),
        (["attack=torchattacks/TIFGSM"], "images of 3 channels"),
        (["attack=torchattacks/PGDL2"], "set threat=l2"),
        (["attack=torchattacks/BIM", "threat=l2"], "set threat=linf"),
        (["attack.target=12"], "a class between 0 and 9"),
        (["defense=cae", "attack@defense.train_attacks.main=torchattacks/PIFGSM"], "images of 3 channels"),
        (["defense=adversarial_training", "+defense.robust.attack.target=12"], "a class between 0 and 9"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_cannot_work_is_refused_where_the_run_is_assembled(compose, overrides, words):
    with pytest.raises(UserError, match=words) as error:
        pipeline.assemble(compose("dataset=digits", "defense=none", *overrides))
    assert "\n" not in str(error.value)


def test_what_cannot_work_is_refused_before_anything_is_attacked(run, defense):
    protocol = Protocol("p", {"all": Suite({"pgd": PGD(), "ta": TorchAttack("PIFGSM")})}, [SMALL])
    with pytest.raises(UserError, match="3 channels"):
        run(defense, protocol, 20, "refused")


@pytest.mark.usefixtures("quiet_figures")
def test_a_random_network_through_the_command_line(train_run):
    run = train_run("defense=none", "dataset=digits", "model._target_=noisy_net.noisy", "protocol=smoke")
    assert run.result["random_systems"] == ["none"]
    assert json.loads((run.folder / "result.json").read_text())["random_systems"] == ["none"]
    assert "answers at random" in (run.folder / "result.md").read_text()


def test_judging_is_repeatable(defense, data):
    x, y = data.test.images[:20].float() / 255, data.test.labels[:20]
    surface = classify(Noisy(defense.body, 0.5))["end_to_end"]
    first, second = (PGD(steps=2)(surface, x, y, SMALL, seed=3) for _ in range(2))
    assert torch.equal(first.x_adv, second.x_adv)
    assert torch.equal(first.success, second.success)
    torch.manual_seed(0)
    assert fooled(surface, x, y)[0].shape == (20,)
