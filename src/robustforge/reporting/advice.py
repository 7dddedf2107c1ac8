"""What to do about each reason for which a number is not believed."""

from __future__ import annotations

from robustforge.indicators.rules import MEANING
from robustforge.indicators.verdict import UNAVERAGED, UNEVADED, UNTESTED

ADVICE = {
    "identity_at_zero": (
        "Let the attack start at the clean image, and judge its success on the deployed system. Answers that are drawn "
        "at random do this too: attack the surface eot (protocol=adaptive)."
    ),
    "unbounded_breaks": (
        "Attack another surface: the gradients of this one lead nowhere. protocol=adaptive tries all that the defense "
        "names; then raise attack.steps."
    ),
    "monotone_in_eps": "Raise attack.steps, or use attack=apgd_ce, which finds its own step size at every budget.",
    "monotone_in_steps": "Lower attack.step_size, or use attack=apgd_ce, which halves its steps by itself.",
    "iterative_not_weaker_than_one_step": (
        "The gradients mislead after the first step. Attack a smoother surface (bpda, eot) or the margin: "
        "attack=apgd_dlr or attack.loss=margin."
    ),
    "white_box_not_weaker_than_black_box": (
        "The gradients are masked. Attack the defense's own surfaces (protocol=adaptive), and believe the black-box "
        "number until a white-box attack is stronger."
    ),
    "noise_weaker_than_gradients": (
        "The gradients are worse than chance. Attack the defense's own surfaces (protocol=adaptive), and look at what "
        "blocks the gradient: rounding, clipping, a saturated softmax."
    ),
    "loss_moved": (
        "The objective is flat where the attack starts: use the margin (attack=apgd_dlr), or a larger attack.step_size."
    ),
    "zero_gradients": (
        "The gradients vanish: use the margin instead of cross-entropy (attack=apgd_dlr), and a surface that goes "
        "around what has no gradient (bpda, transfer)."
    ),
    "best_step_not_last": "The attack had not converged: double attack.steps until the number no longer falls.",
    "restarts_agree": "One start does not find what is there: raise attack.restarts until the number no longer falls.",
    UNTESTED: "Attack with gradients and many steps: protocol=standard for a plain classifier, adaptive for a defense.",
    UNEVADED: "Attack the detector too: protocol=adaptive, or attack=detector_aware.",
    UNAVERAGED: "Average the gradients over draws: protocol=adaptive attacks the surface eot.",
}


def meaning(name: str) -> str:
    """What a violated indicator, or another reason, says."""
    return MEANING.get(name, "nothing supports the number")


def advice(name: str) -> str:
    """What to do next; nothing for a name that is not known."""
    return ADVICE.get(name, "")
