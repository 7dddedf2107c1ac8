"""Which attack the gallery shows where a protocol names none."""

from types import SimpleNamespace

from pages import write_run
from recorded import BIG

from robustforge.cli.pictures import _strongest
from robustforge.types import Threat


def protocol(*names):
    attacks = {f"entry_{name}": SimpleNamespace(name=name) for name in names}
    suites = {"all": SimpleNamespace(attacks=attacks)}
    return SimpleNamespace(suites=suites, budgets=[Threat("linf", BIG)], rates=[0.05])


def test_the_strongest_recorded_attack_with_the_threshold_that_it_knew(tmp_path):
    run = write_run(tmp_path / "run")
    attack, surface, limit = _strongest("memdef", protocol("fgsm", "pgd", "square"), run)
    assert (attack.name, surface, limit) == ("pgd", "end_to_end", 1.6)
    attack, surface, limit = _strongest("memdef", protocol("fgsm"), run)
    assert (attack.name, surface) == ("fgsm", "selector"), "one that the protocol has"
    assert _strongest("memdef", protocol("fooling"), run) is None
