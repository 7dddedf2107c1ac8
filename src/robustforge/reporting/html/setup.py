"""What was tested and how, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustforge.records.table import CLEAN
from robustforge.reporting.html.files import RunFiles
from robustforge.reporting.text import NORMS, budget

SURFACES = {
    "end_to_end": "the deployed system from input to answer",
    "transfer": "the undefended classifier; its attacked images are shown to the defense",
    "bpda": "the defense, with what has no gradient replaced by the identity on the way back",
    "eot": "the deployed system, gradients averaged over its random draws",
    "detector_aware": "answer and risk together",
    "none": "nothing",
}
MOVES = {
    "linf": "every pixel value may change by at most {eps}, pixel values being in [0, 1]",
    "l2": "the change of an image may have a Euclidean length of at most {eps}, pixel values being in [0, 1]",
}
SUCCESS = (
    "An attack succeeds on an image when the label is wrong, the change is within the budget, and the system accepts "
    "it. The worst case is taken image by image over all recorded attacks, and counts clean errors and rejections as "
    "lost. ± and lines are 95 % intervals (Wilson's) over the images."
)


def facts(run: RunFiles) -> list[tuple[str, str]]:
    """(what, in words) of the evaluation."""
    result = run.result
    cells = [cell for cell in result["cells"] if cell["attack"] != CLEAN]
    rows = [("defense", str(result["defense"]))]
    rows += [("data", f"{run.data}, " * bool(run.data) + f"{result['n_test']} images of the {result['split']} split")]
    threats = dict.fromkeys((cell["norm"], cell["eps"]) for cell in cells)
    rows += [("threat", "; ".join(threat(norm, eps) for norm, eps in threats) or "none")]
    rows += [
        ("protocol", f"{result['protocol']}" + (", states verdicts" if result["strict"] else ", states no verdict"))
    ]
    rows += [("attacks", ", ".join(dict.fromkeys(cell["attack"].replace("_", " ") for cell in cells)) or "none")]
    surfaces = dict.fromkeys(cell["surface"] for cell in cells)
    rows += [(f"surface {name.replace('_', ' ')}", SURFACES[name]) for name in surfaces if name in SURFACES]
    own = [name.replace("_", " ") for name in surfaces if name not in SURFACES]
    rows += [("surfaces of its own", f"{', '.join(own)}: named and explained by the defense")] if own else []
    for one in result["thresholds"]:
        words = f"risk above {one['value']:.4g}, fitted on {one['calibration_images']} held-out clean images"
        rows.append((f"{one['system']} rejects at {100 * one['rate']:g} %", words))
    rows += [("seed", str(result["seed"])), ("success", SUCCESS)]
    return rows


def threat(norm: str, eps: float | None) -> str:
    """A budget as a sentence."""
    if eps is None:
        return f"{NORMS.get(norm, norm)}: changes of any size, and the smallest that the attack finds"
    words = MOVES.get(norm, "{eps} in that norm").format(eps=budget(eps, norm))
    return f"{NORMS.get(norm, norm)} {budget(eps, norm)}: {words}"


def versions(run: RunFiles) -> list[tuple[str, str]]:
    """(what, version) of the code and the machine."""
    code = run.result.get("code") or {}
    rows = [(name, str(version)) for name, version in (run.result.get("versions") or {}).items() if version]
    if code.get("commit"):
        rows.append(("commit", f"{code['commit']}" + (", with changes" if code.get("modified") else "")))
    if code.get("source"):
        rows.append(("hash of the source", str(code["source"])))
    rows += [
        (k.replace("_", " "), str(run.environment[k])) for k in ("python", "cpu", "cpu_count") if k in run.environment
    ]
    gpus = run.environment.get("gpus")
    rows += [("GPUs", ", ".join(map(str, gpus)))] if isinstance(gpus, list) and gpus else []
    return rows


def settings(run: RunFiles) -> list[tuple[str, str]]:
    """The configuration, one (dotted key, value) a line."""
    return list(_flat(run.settings, ""))


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, "null" if value is None else str(value)
