"""torchattacks on budgets, norms, numbers of classes and images that its defaults were not made for."""

import inspect
import warnings

import pytest
import torch
import torchattacks
from attack_cases import check_result
from torch import nn

from robustforge.attacks.core.surface import Surface
from robustforge.attacks.pgd import PGD
from robustforge.attacks.torchattacks import TorchAttack, attack_names
from robustforge.attacks.torchattacks_facts import NORMS
from robustforge.defenses.base import classify
from robustforge.types import DefenseOutput, Threat, UserError

warnings.filterwarnings("ignore", "torchattacks")
DATA = [((1, 28, 28), 10), ((3, 32, 32), 10), ((1, 8, 8), 3), ((3, 16, 24), 2)]
SHORT = {
    "steps": 2, "n_queries": 5, "max_iterations": 10, "binary_search_steps": 1, "nb_sample": 4, "restarts": 1,
    "popsize": 3, "num_iter_set": 2, "N": 2, "m": 2, "noise_batch_size": 2, "gamma": 1e-3,
}  # fmt: skip
GRADIENT_STEPS = [
    "BIM",
    "DIFGSM",
    "EOTPGD",
    "MIFGSM",
    "NIFGSM",
    "PGD",
    "RFGSM",
    "SINIFGSM",
    "UPGD",
    "VMIFGSM",
    "VNIFGSM",
]


def accepts(attack):
    return inspect.signature(getattr(torchattacks, attack)).parameters


def short(attack, **more):
    return TorchAttack(attack, {k: v for k, v in SHORT.items() if k in accepts(attack)} | more)


def made_up(shape, classes, n=4):
    """A network that takes images of one size only, some images, and the labels that it gives them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), classes)).eval()
    x = torch.rand(n, *shape)
    return classify(network)["end_to_end"], x, network(x).argmax(1)


def refusal(attack, shape, classes, threat):
    try:
        attack.fits(shape, classes, threat)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", attack_names())
def test_every_class_gives_a_result_or_one_sentence_beforehand(attack, norm):
    given, threat = short(attack), Threat(norm, 0.3 if norm == "linf" else 4.0)
    for shape, classes in DATA:
        surface, x, y = made_up(shape, classes)
        sentence = refusal(given, shape, classes, threat)
        if sentence is None:
            result = given(surface, x, y, threat)
            assert torch.equal(result.success, surface.system(result.x_adv, y).logits.argmax(1) != y)
        else:
            assert "\n" not in sentence
            with pytest.raises(UserError) as error:
                given(surface, x, y, threat)
            assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("attack", "options", "shape", "classes", "norm", "words"),
    [
        ("AutoAttack", {}, (1, 8, 8), 3, "linf", "at least 4 classes, and there are 3"),
        ("AutoAttack", {"version": "rand"}, (1, 8, 8), 2, "linf", "at least 3 classes"),
        ("APGDT", {}, (1, 8, 8), 2, "linf", "at least 4 classes"),
        ("APGD", {"loss": "dlr"}, (1, 8, 8), 2, "linf", "at least 3 classes"),
        ("UPGD", {"loss": "dlr"}, (1, 8, 8), 2, "linf", "at least 3 classes"),
        ("PIFGSM", {}, (1, 28, 28), 10, "linf", "images of 3 channels, and these have 1"),
        ("PIFGSMPP", {}, (5, 28, 28), 10, "linf", "images of 3 channels"),
        ("TIFGSM", {}, (1, 28, 28), 10, "linf", "images of 3 channels"),
        ("TIFGSM", {}, (3, 16, 24), 10, "linf", "square images, and these are 16 x 24"),
        ("DIFGSM", {}, (1, 24, 16), 10, "linf", "square images"),
        ("DIFGSM", {}, (1, 1, 1), 10, "linf", "at least 2 x 2"),
        ("Pixle", {}, (3, 16, 24), 10, "linf", "L0"),
        ("Square", {}, (3, 16, 24), 10, "l2", "square images"),
        ("Square", {}, (3, 4, 4), 10, "l2", "at least 5 x 5"),
        ("AutoAttack", {}, (3, 16, 24), 10, "l2", "square images"),
        ("JSMA", {}, (1, 1, 1), 10, "linf", "L0"),
        ("LGV", {}, (3, 16, 16), 10, "linf", "trainloader"),
        ("FAB", {"norm": "L1"}, (3, 16, 16), 10, "linf", "L1"),
        ("APGD", {"norm": "L2"}, (3, 16, 16), 10, "linf", "set threat=l2"),
        ("APGD", {}, (3, 16, 16), 10, "l1", "searches in L-infinity"),
        ("Square", {}, (3, 16, 16), 10, "l1", "searches in L-infinity"),
        ("FAB", {}, (3, 16, 16), 10, "l1", "searches in L-infinity"),
        ("JSMA", {}, (1, 8, 8), 10, "l1", "set threat=l0,"),
        ("OnePixel", {}, (1, 8, 8), 10, "l1", "set threat=l0_pixels"),
    ],
)  # fmt: skip
def test_what_is_refused(attack, options, shape, classes, norm, words):
    assert words in refusal(TorchAttack(attack, options), shape, classes, Threat(norm, 0.1))


@pytest.mark.filterwarnings("ignore:torchattacks.*:UserWarning")
@pytest.mark.parametrize(
    ("attack", "options", "norm"),
    [("EADL1", {"max_iterations": 10, "binary_search_steps": 1}, "l1"), ("GN", {}, "l1"),
     ("OnePixel", {"steps": 1, "popsize": 2}, "l0_pixels"), ("GN", {}, "l0")],
)  # fmt: skip
def test_sparse_norms_are_searched_and_kept(victim, images, attack, options, norm):
    x, y, threat = images[0][:4], images[1][:4], Threat(norm, 6)
    result = TorchAttack(attack, options)(victim, x, y, threat)
    check_result(result, victim, x, y, threat)


def test_what_fits():
    for attack, shape, classes in (("AutoAttack", (1, 8, 8), 4), ("Square", (3, 16, 24), 2), ("DIFGSM", (1, 8, 8), 2)):
        assert refusal(TorchAttack(attack), shape, classes, Threat("linf", 0.1)) is None
    assert refusal(TorchAttack("Square"), (1, 5, 5), 2, Threat("l2", 0.1)) is None
    # where any image is allowed, an attack without a radius is measured as it is
    everything = Threat("linf", 1.0)
    assert refusal(TorchAttack("CW"), (1, 8, 8), 2, everything) is None
    assert "square images" in refusal(TorchAttack("Pixle"), (3, 16, 24), 2, everything)
    assert "2 to 16384 pixel values" in refusal(TorchAttack("JSMA"), (1, 1, 1), 2, everything)
    assert "2 to 16384 pixel values" in refusal(TorchAttack("JSMA"), (3, 224, 224), 2, everything)
    assert "set threat=l2" in refusal(TorchAttack("PGDL2"), (1, 8, 8), 2, everything)


def test_the_norms_are_those_of_the_library():
    assert set(NORMS) <= set(attack_names())
    for attack in attack_names():
        words = " ".join(inspect.getdoc(getattr(torchattacks, attack)).split())
        if "Distance Measure : L" in words and "norm" not in accepts(attack) and attack != "SparseFool":
            said = words.partition("Distance Measure : ")[2].split()[0].lower()
            said = "l0_pixels" if attack in ("OnePixel", "Pixle") else said  # L0 by position, as the code has it
            assert NORMS.get(attack, "linf") == said, attack


def test_a_radius_is_never_taken_in_another_norm(victim, images):
    x, y = images[0][:4], images[1][:4]
    for attack, norm in (("PGDL2", "linf"), ("PGDRSL2", "linf"), ("BIM", "l2"), ("SPSA", "l2"), ("CW", "linf")):
        with pytest.raises(UserError, match="searches in L"):
            TorchAttack(attack)(victim, x, y, Threat(norm, 0.3))


@pytest.mark.parametrize("attack", GRADIENT_STEPS)
def test_gradient_steps_reach_the_border_of_the_ball(victim, images, attack):
    x, y = images
    threat = Threat("linf", 0.3)
    ours = PGD(steps=10)(victim, x, y, threat).success.float().mean()
    for options in ({}, {"steps": 4}):
        result = TorchAttack(attack, options, early_stop=False)(victim, x, y, threat)
        assert (result.x_adv - x).abs().max() > 0.29
        assert result.success.float().mean() > ours - 0.1


def test_step_sizes_follow_the_radius_and_the_number_of_steps(victim, images, monkeypatch):
    seen = []
    for attack in ("BIM", "FFGSM", "PGDL2", "SPSA", "PIFGSM", "GN"):
        factory = getattr(torchattacks, attack)
        monkeypatch.setattr(factory, "forward", lambda self, x, y: seen.append(vars(self)) or x)
    x, y = images[0][:2], images[1][:2]

    def step(attack, norm, radius, key="alpha", **options):
        images_of = x.expand(-1, 3, -1, -1) if attack == "PIFGSM" else x
        gray = Surface("s", lambda z, t: (victim.logits(z[:, :1], t),), lambda z, t: victim.system(z[:, :1], t),
                       victim.modules)  # fmt: skip
        TorchAttack(attack, options, early_stop=False)(gray, images_of, y, Threat(norm, radius))
        return seen[-1][key]

    assert step("BIM", "linf", 8 / 255) == pytest.approx(2 / 255)
    assert step("BIM", "linf", 0.3) == pytest.approx(0.075)
    assert step("BIM", "linf", 0.3, steps=100) == pytest.approx(0.0075)
    assert step("BIM", "linf", 0.3, alpha=0.05) == 0.05
    assert step("BIM", "linf", 0.3, eps=0.1) == pytest.approx(0.025)
    assert step("FFGSM", "linf", 0.2) == pytest.approx(0.25)
    assert step("PGDL2", "l2", 0.5) == pytest.approx(0.1)
    assert step("SPSA", "linf", 0.1, "lr", nb_iter=5) == pytest.approx(0.05)
    assert step("PIFGSM", "linf", 0.3, "max_epsilon") == 0.3
    assert step("GN", "linf", 0.3, "std") == pytest.approx(0.15)
    assert step("GN", "l2", 2.8, "std") == pytest.approx(0.1)


def test_steps_that_cannot_reach_are_said(victim, images, caplog):
    x, y = images[0][:2], images[1][:2]
    TorchAttack("BIM", {"alpha": 2 / 255})(victim, x, y, Threat("linf", 0.3))
    assert "10 steps of 0.007843 cannot reach the radius 0.3" in caplog.text
    caplog.clear()
    TorchAttack("BIM", {"alpha": 0.03})(victim, x, y, Threat("linf", 0.3))
    assert not caplog.text


def test_classes_follow_the_model():
    for classes in (2, 3, 12):
        surface, x, y = made_up((1, 6, 6), classes, n=16)
        result = TorchAttack("JSMA", {"gamma": 1.0})(surface, x, y, Threat("linf", 1.0))
        assert result.success.float().mean() > 0.4
        reached = surface.logits(result.x_adv, y).argmax(1) == (y + 1) % classes
        assert reached[result.success].float().mean() > 0.6
    surface, x, y = made_up((1, 6, 6), 5, n=16)
    strong = TorchAttack("APGDT")(surface, x, y, Threat("linf", 0.5))
    assert strong.success.all()


def test_passes_are_counted(victim, images):
    x, y = images[0][:6], images[1][:6]
    linf = Threat("linf", 0.01)

    def passes(attack, threat=linf, **options):
        result = TorchAttack(attack, options, early_stop=False)(victim, x, y, threat)
        return set(result.forwards.tolist()), set(result.backwards.tolist()), result.trace

    assert passes("FGSM")[:2] == ({1}, {1})
    assert passes("PGD", steps=3)[:2] == ({3}, {3})
    assert passes("EOTPGD", steps=3, eot_iter=2)[:2] == ({6}, {6})
    assert passes("Square", n_queries=4)[1:] == ({0}, None)
    assert passes("SPSA", nb_sample=2)[1:] == ({0}, None)
    _, (backwards,), trace = passes("DeepFool", Threat("l2", 0.5), steps=2)
    assert backwards > 1
    _, _, trace = passes("BIM", steps=5)
    assert (trace.zero_gradient < 1).all()
    assert (trace.loss_gain > 0).any()
    assert trace.best_at.isfinite().all()


def test_masked_gradients_show_in_the_trace(trained, images):
    """An iterated attack of torchattacks on logits that saturate the loss is judged as our own would be."""
    x, y = images[0][:8], images[1][:8]
    scaled = Surface("s", lambda z, _: (1e6 * trained(z),), lambda z, _: DefenseOutput(1e6 * trained(z)), trained)
    result = TorchAttack("PGD", {"steps": 3, "random_start": False}, early_stop=False)(
        scaled, x, y, Threat("linf", 0.1)
    )
    assert (result.backwards > 1).all()
    assert (result.trace.zero_gradient == 1).sum() >= 6


def test_an_error_of_its_own_code_is_one_sentence(victim, images):
    with pytest.raises(UserError, match=r"torchattacks.EADEN with .*max_iterations.* failed on images \(1, 28, 28\)"):
        TorchAttack("EADEN", {"max_iterations": 2})(victim, images[0][:2], images[1][:2], Threat("linf", 1.0))
