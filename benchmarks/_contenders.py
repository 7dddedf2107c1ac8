"""Every attack that looks for small perturbations, ours and the other libraries', at one number of passes."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import _oracles
from benchmarks._victims import Victim
from robustforge.attacks.apgd import APGD
from robustforge.attacks.carlini_wagner import CarliniWagner
from robustforge.attacks.core.attack import Attack
from robustforge.attacks.ddn import DDN
from robustforge.attacks.deepfool import DeepFool
from robustforge.attacks.ead import EAD
from robustforge.attacks.fab import FAB
from robustforge.attacks.fmn import FMN
from robustforge.attacks.jsma import JSMA
from robustforge.attacks.pdgd import PDGD
from robustforge.attacks.pdpgd import PDPGD
from robustforge.attacks.pgd import PGD
from robustforge.attacks.sigma_zero import SigmaZero
from robustforge.attacks.square import Square
from robustforge.defenses.base import classify
from robustforge.types import Norm, Threat

ROUNDS = 7  # budgets that a fixed-budget attack is run at, one after the other
VERDICTS = 25  # of our passes one is left for the verdicts in float32, which count as forward passes
SEARCHES = 9  # rounds of the searches over c
ORDERS: dict[Norm, float] = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}
Bounded = Callable[[Victim, float], Tensor]  # the victim's images attacked within a radius


@dataclass(frozen=True)
class Contender:
    """One attack of one library.

    Attributes:
        attack: which; namesakes of several libraries are compared with each other.
        library: whose.
        smallest: looks for the smallest perturbations of a victim's images; None for a fixed-budget attack.
        bounded: attacks within a radius; None for a minimum-norm attack.
    """

    attack: str
    library: str
    smallest: Callable[[Victim], Tensor] | None = None
    bounded: Bounded | None = None


def adv_lib() -> Any:
    """The attacks of adversarial-library, whose plots want visdom: never used here, and it cannot be built any more."""
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    import adv_lib.attacks

    return adv_lib.attacks


def contenders(norm: Norm, passes: int) -> list[Contender]:
    """All of them in one norm, each with about ``passes`` forward and as many backward passes an image."""
    return [*_ours(norm, passes), *_of_adv_lib(norm, passes), *_of_foolbox(norm, passes), *_of_others(norm, passes)]


def _ours(norm: Norm, passes: int) -> list[Contender]:
    each, nine = passes // ROUNDS, max(1, passes // ROUNDS // 9)
    steps = passes - passes // VERDICTS
    searched = {"steps": steps // SEARCHES, "search_steps": SEARCHES}
    smallest: dict[str, Attack] = {"FMN": FMN(steps=steps)}
    if norm in ("linf", "l2"):
        smallest["DeepFool"] = DeepFool()
    if norm == "l2":
        smallest |= {"DDN": DDN(steps=steps), "PDGD": PDGD(steps=steps), "CW": CarliniWagner(**searched)}
    if norm == "l1":
        smallest["EAD"] = EAD(**searched)
    smallest |= {"sigma-zero": SigmaZero(steps=steps), "JSMA": JSMA()} if norm == "l0" else {}
    if norm != "l0":
        # FAB takes two forward passes a step: one to step by, one to see where that led
        smallest |= {"PDPGD": PDPGD(steps=steps), "FAB": FAB(steps=passes // 18, early_stop=False)}
    bounded: dict[str, Attack] = {"PGD": PGD(steps=each)}
    if norm != "l0":
        aimed = APGD("apgd_t", steps=nine, loss="dlr", n_target_classes=9)
        bounded |= {
            "APGD": APGD(steps=each),
            "APGD-T": aimed,
            "Square": Square(n_queries=2 * each),
        }
    everything = Threat(norm, {"linf": 1.0, "l2": 1e3, "l1": 1e5, "l0": 1e6}[norm])

    def within(attack: Attack, victim: Victim, threat: Threat) -> Tensor:
        seed = int(torch.randint(2**31, ()))  # other libraries' starts differ from try to try, too
        return attack(classify(victim.network)["end_to_end"], victim.x, victim.y, threat, seed=seed).x_adv

    return [
        *(Contender(key, "ours", lambda v, one=one: within(one, v, everything)) for key, one in smallest.items()),
        *(
            Contender(key, "ours", bounded=lambda v, eps, one=one: within(one, v, Threat(norm, eps)))
            for key, one in bounded.items()
        ),
    ]


def _of_adv_lib(norm: Norm, passes: int) -> list[Contender]:
    library, p, each = adv_lib(), ORDERS[norm], passes // ROUNDS

    def of(name: str, **settings: Any) -> Callable[[Victim], Tensor]:
        def call(victim: Victim) -> Tensor:
            found: Tensor = getattr(library, name)(victim.network, victim.x, victim.y, **settings)
            return found.detach()

        return call

    large = {"\N{GREEK SMALL LETTER ALPHA}_init": 10.0} if norm == "linf" else {}
    found = {"FMN": of("fmn", norm=p, steps=passes, **large)}
    if norm == "l2":
        found |= {
            "DDN": of("ddn", steps=passes, levels=None),
            "PDGD": of("pdgd", num_steps=passes),
            "CW": of("carlini_wagner_l2", binary_search_steps=SEARCHES, max_iterations=passes // SEARCHES),
            "SuperDeepFool": of("sdf"),
        }
    if norm in ("linf", "l2"):
        found |= {"DeepFool": of("df", norm=p), "TR": of("tr", p=p, iter=passes, adaptive=True)}
    if norm in ("l1", "l2"):
        found["ALMA"] = of(
            "alma", distance=norm, num_steps=passes, **({} if norm == "l2" else {"init_lr_distance": 0.5})
        )
    if norm == "l0":
        found |= {"sigma-zero": of("sigma_zero", num_steps=passes), "VFGA": of("vfga", targeted=False)}
    else:
        found |= {"PDPGD": of("pdpgd", norm=p, num_steps=passes), "FAB": of("fab", norm=p, n_iter=passes // 9)}
    contenders = [Contender(name, "adv-lib", call) for name, call in found.items()]
    if norm != "l0":
        reps, nine = {"norm": p, "use_large_reps": norm == "l1"}, max(1, each // 9)
        bounded = {
            "APGD": lambda v, eps: of("apgd", eps=eps, n_iter=each, loss_function="ce", **reps)(v),
            "APGD-T": lambda v, eps: of("apgd_targeted", eps=eps, n_iter=nine, num_targets=9, **reps)(v),
        }
        contenders += [Contender(name, "adv-lib", bounded=call) for name, call in bounded.items()]
    return contenders


def _of_foolbox(norm: Norm, passes: int) -> list[Contender]:
    import foolbox.attacks as fa

    searched = {"steps": passes // SEARCHES, "binary_search_steps": SEARCHES}
    kinds = {"linf": fa.LInfFMNAttack, "l2": fa.L2FMNAttack, "l1": fa.L1FMNAttack, "l0": fa.L0FMNAttack}
    found: dict[str, Any] = {"FMN": kinds[norm](steps=passes)}
    if norm == "l2":
        found |= {"DDN": fa.DDNAttack(steps=passes), "CW": fa.L2CarliniWagnerAttack(**searched)}
    if norm in ("linf", "l2"):
        found["DeepFool"] = (fa.L2DeepFoolAttack if norm == "l2" else fa.LinfDeepFoolAttack)(candidates=None)
    if norm == "l1":
        found["EAD"] = fa.EADAttack(**searched, decision_rule="L1")
    steps = passes // ROUNDS
    bounded = {
        "linf": lambda: fa.LinfPGD(steps=steps, rel_stepsize=2.5 / steps),
        "l2": lambda: fa.L2PGD(steps=steps, rel_stepsize=2.5 / steps),
        "l1": lambda: fa.SparseL1DescentAttack(steps=steps, rel_stepsize=2.5 / steps, random_start=True),
    }

    def call(attack: Any, victim: Victim, eps: float | None) -> Tensor:
        adversarial: Tensor = attack(_oracles.foolbox_model(victim.network), victim.x, victim.y, epsilons=eps)[
            0 if eps is None else 1
        ]
        return adversarial

    contenders = [Contender(name, "foolbox", lambda v, one=one: call(one, v, None)) for name, one in found.items()]
    if norm in bounded:
        one = bounded[norm]()
        contenders.append(Contender("PGD", "foolbox", bounded=lambda v, eps: call(one, v, eps)))
    return contenders


def _of_others(norm: Norm, passes: int) -> list[Contender]:
    """Of torchattacks and ART, what is bearable: their JSMA and ART's EAD take more than five minutes for 48 images."""
    each, ta, found = passes // ROUNDS, _oracles.torchattacks_of, list[Contender]()
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}.get(norm, "")
    if norm == "l2":
        found = [
            Contender("CW", "torchattacks", lambda v: ta(v, "CW", steps=passes)),
            Contender("DeepFool", "torchattacks", lambda v: ta(v, "DeepFool")),
            Contender("CW", "ART", lambda v: _art(v, "CarliniL2Method", max_iter=passes // SEARCHES)),
            Contender("DeepFool", "ART", lambda v: _art(v, "DeepFool", max_iter=50, epsilon=0.02)),
        ]
    if norm == "l1":
        found = [Contender("EAD", "torchattacks", lambda v: ta(v, "EADL1", max_iterations=passes // SEARCHES))]
    if norm in ("linf", "l2"):
        step = 2.5 / each

        def descent(victim: Victim, eps: float) -> Tensor:
            return ta(victim, "PGD" if norm == "linf" else "PGDL2", eps=eps, alpha=step * eps, steps=each)

        def adaptive(victim: Victim, eps: float) -> Tensor:
            return ta(victim, "APGD", norm=name, eps=eps, steps=each)

        def of_art(victim: Victim, eps: float) -> Tensor:
            settings = {"norm": np.inf if norm == "linf" else 2, "num_random_init": 1}
            return _art(
                victim, "ProjectedGradientDescentPyTorch", eps=eps, eps_step=step * eps, max_iter=each, **settings
            )

        bounded: Mapping[str, tuple[str, Bounded]] = {
            "torchattacks": ("PGD", descent),
            "torchattacks ": ("APGD", adaptive),
            "ART": ("PGD", of_art),
        }
        found += [Contender(attack, key.strip(), bounded=call) for key, (attack, call) in bounded.items()]
    return found


def _art(victim: Victim, kind: str, **settings: Any) -> Tensor:
    import art.attacks.evasion as evasion

    attack = getattr(evasion, kind)(
        _oracles.art_classifier(victim), batch_size=len(victim.x), verbose=False, **settings
    )
    labels = {"y": victim.y.numpy()} if kind.startswith(("Projected", "Carlini")) else {}
    return torch.from_numpy(attack.generate(victim.x.numpy(), **labels))
