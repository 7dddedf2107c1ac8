"""What the classes of torchattacks 3.5.1 assume without saying so, and the options that make them fit a budget.

Read off its source. Each class has a norm of its own, whatever the threat's; several need colored or square images, or
more classes than two; and the step sizes are made for a radius of 8/255.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustforge.types import Threat, UserError

_NAMES = {"linf": "L-infinity", "l2": "L2", "l1": "L1", "l0": "L0", "l0_pixels": "L0 of pixels"}
_PAIRS = 1 << 28  # most pairs of pixels that JSMA's tables may have: 2 GiB each
_REACH = 2.5  # radii that all steps together span, as with the library's own defaults: 10 steps of 2/255 for 8/255
# Seen in its results; said whenever the attack is used, so that nobody reports such a number unaware.
DEFECTS = {
    "CW": "does nothing on pixels that are exactly 0 or 1, and has no binary search over c",
    "DeepFool": "loops over images and gives up early, so that it leaves many images standing",
    "JSMA": "loops over images and gives up early, so that it leaves many images standing",
    "PGDRS": "is made for smoothed classifiers: it averages over noise of noise_sd=0.5 and leaves others standing",
    "PGDRSL2": "is made for smoothed classifiers: it averages over noise of noise_sd=0.5 and leaves others standing",
    "TPGD": "knows no label and climbs away from the clean answer alone",
    "AutoAttack": "disagrees with the reference implementation by fractions of a point",
}


@dataclass(frozen=True)
class Limits:
    """What images and answers a class can work on.

    Attributes:
        channels: the only number of channels that it takes, or None for any.
        square: whether height and width must be equal.
        side: least height and width.
        classes: least number of classes.
    """

    channels: int | None = None
    square: bool = False
    side: int = 1
    classes: int = 2


# the norm of a class that takes none; those missing here work in L-infinity
NORMS = {
    "PGDL2": "l2",
    "PGDRSL2": "l2",
    "CW": "l2",
    "DeepFool": "l2",
    "EADL1": "l1",
    "EADEN": "l1",
    "JSMA": "l0",
    "OnePixel": "l0_pixels",
    "Pixle": "l0_pixels",
    "SparseFool": "l0",
}
NORMLESS = ("GN", "VANILA")  # noise, and nothing at all
LIMITS = {
    "APGDT": Limits(classes=4),
    "AutoAttack": Limits(classes=4),
    "DIFGSM": Limits(square=True, side=2),
    "TIFGSM": Limits(channels=3, square=True, side=2),
    "PIFGSM": Limits(channels=3),
    "PIFGSMPP": Limits(channels=3),
    "Pixle": Limits(square=True),
}
_SQUARE_L2 = Limits(square=True, side=5)


def norm_of(attack: str, options: Mapping[str, Any], accepts: Mapping[str, Any], threat: Threat) -> str:
    """The norm in which a class searches; one that can be told searches in L-infinity or L2 (FAB's L1 fails)."""
    if "norm" in options:
        return str(options["norm"]).lower()
    if "norm" in accepts:
        return threat.norm if threat.norm in ("linf", "l2") else "linf"
    return threat.norm if attack in NORMLESS else NORMS.get(attack, "linf")


def check_norm(attack: str, options: Mapping[str, Any], accepts: Mapping[str, Any], threat: Threat) -> None:
    """Refuses a threat in whose norm the class does not search.

    An attack without a radius of its own is measured all the same where any image is allowed (L-infinity with radius
    1): nothing is cut off its results then.

    Raises:
        UserError: the norms differ.
    """
    own = norm_of(attack, options, accepts, threat)
    bounded = {"eps", "max_epsilon"} & set(accepts)
    if own == threat.norm or (not bounded and threat.norm == "linf" and threat.eps >= 1):
        return
    advice = f"set threat={own}, or choose another attack" if own in _NAMES else "choose another attack"
    advice += "" if bounded else ", or threat.eps=1 in L-infinity, which allows any image"
    raise UserError(
        f"torchattacks.{attack} searches in {_NAMES.get(own, own)}, and the threat is a radius of {threat.eps:.4g} in "
        f"{_NAMES[threat.norm]}: {advice}."
    )


def check_limits(
    attack: str, options: Mapping[str, Any], shape: Sequence[int], num_classes: int, threat: Threat
) -> None:
    """Refuses images and numbers of classes on which the class ends in an error of its own.

    Raises:
        UserError: images (C, H, W) of another shape, or too few classes.
    """
    channels, height, width = shape
    for limits in _limits(attack, options, threat):
        if limits.channels not in (None, channels):
            _refuse(attack, f"images of {limits.channels} channels", f"these have {channels}")
        if limits.square and height != width:
            _refuse(attack, "square images", f"these are {height} x {width}")
        if min(height, width) < limits.side:
            _refuse(attack, f"images of at least {limits.side} x {limits.side} pixels", f"these are {height} x {width}")
        if num_classes < limits.classes:
            _refuse(attack, f"at least {limits.classes} classes", f"there are {num_classes}")
    pixels = channels * height * width
    if attack == "JSMA" and not 2 <= pixels <= _PAIRS**0.5:
        _refuse(attack, f"2 to {int(_PAIRS**0.5)} pixel values, whose pairs it lists", f"these have {pixels}")


def _limits(attack: str, options: Mapping[str, Any], threat: Threat) -> list[Limits]:
    found = [LIMITS.get(attack, Limits())]
    if options.get("loss") == "dlr" or options.get("version") == "rand":  # the third largest logit
        found = [Limits(classes=3)]
    if attack in ("Square", "AutoAttack") and norm_of(attack, options, {"norm": None}, threat) == "l2":
        found += [_SQUARE_L2] if options.get("version") != "rand" else []
    return found


def _refuse(attack: str, needs: str, has: str) -> None:
    raise UserError(f"torchattacks.{attack} needs {needs}, and {has}: choose another attack.")


def fitted_options(
    factory: Callable[..., Any], options: Mapping[str, Any], shape: Sequence[int], num_classes: int, threat: Threat
) -> dict[str, Any]:
    """The given options, and for those that were not given what the data and the budget ask for.

    Args:
        factory: class of torchattacks.
        options: as the user gave them.
        shape: (C, H, W) of the images.
        num_classes: of the answers.
        threat: the budget.

    Returns:
        With ``eps`` (``max_epsilon``), ``norm`` and ``n_classes`` where the class takes them, and the step size in the
        library's own proportion to the radius: ``alpha`` spans 2.5 eps in all steps (2 eps for PGDL2 and PGDRSL2, 1.25
        for the one step of FFGSM), SPSA's ``lr`` likewise. The noise of GN gets the standard deviation eps / 2, in L2
        one whose expected length is eps, and so in L1; of a count 0.5.
    """
    accepts = inspect.signature(factory).parameters
    wanted: dict[str, Any] = {
        "eps": threat.eps,
        "max_epsilon": threat.eps,
        "norm": {"l2": "L2"}.get(threat.norm, "Linf"),
        "n_classes": num_classes,
        "std": _noise(threat, shape[0] * shape[1] * shape[2]),
    }
    if "eps" in accepts:
        eps = float(options.get("eps", threat.eps))
        if "alpha" in accepts:
            default = {name: one.default for name, one in accepts.items()}
            shrink = default["steps"] / max(1, options.get("steps", default["steps"])) if "steps" in default else 1.0
            wanted["alpha"] = default["alpha"] / default["eps"] * eps * shrink
        if "nb_iter" in accepts:
            wanted["lr"] = _REACH * eps / max(1, options.get("nb_iter", accepts["nb_iter"].default))
        wanted.pop("std")  # Jitter's is of the logits
    return {**{name: value for name, value in wanted.items() if name in accepts}, **options}


def _noise(threat: Threat, values: int) -> float:
    """Standard deviation of Gaussian noise on so many values that about fills the ball."""
    sizes: dict[str, float] = {"linf": threat.eps / 2, "l2": threat.eps / values**0.5, "l1": threat.eps / values}
    return sizes.get(threat.norm, 0.5)


def short_of(options: Mapping[str, Any], accepts: Mapping[str, Any]) -> str | None:
    """A sentence where the steps that the user set cannot reach the border of the ball, else None."""
    size = "lr" if "nb_iter" in accepts else "alpha"
    count = "nb_iter" if "nb_iter" in accepts else "steps"
    if not {"eps", size, count} <= set(accepts):
        return None
    steps, step, eps = options.get(count, accepts[count].default), options[size], options["eps"]
    if steps * step >= eps * (1 - 1e-6):
        return None
    return f"{steps} steps of {step:.4g} cannot reach the radius {eps:.4g}: leave out {size}, or raise it or {count}"
