"""The model card of an exported run: ``README.md`` as the Hugging Face hub reads it, front matter first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from robustforge.reporting.tables import markdown_run

UNLICENSED = (
    "# license: choose one, such as mit, and remove the number sign: nobody may use the model without a license"
)


def model_card(
    name: str,
    defense: str,
    dataset: str,
    shape: Sequence[int],
    result: Mapping[str, Any] | None,
    code: Mapping[str, Any],
    trust: Sequence[str] = (),
) -> str:
    """The text of the card.

    Args:
        name: of the run, the title.
        defense: row name of the defense.
        dataset: name of its data.
        shape: (C, H, W) of its images.
        result: content of ``result.json``; None for a run that was not evaluated.
        code: which code trained it: ``version`` and ``commit``.
        trust: modules of the reader's own that the run builds networks from.

    Returns:
        Markdown with the table, what it was measured with, and how to load the model. The license is left to the
        reader.
    """
    tags = ["adversarial-robustness", "image-classification", defense, dataset]
    front = [
        "---",
        "library_name: robustforge",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {json.dumps(tag, ensure_ascii=False)}" for tag in dict.fromkeys(tags)),
        UNLICENSED,
        "---",
    ]
    parts = ["\n".join(front), f"# {name}", f"The defense `{defense}`, trained on `{dataset}` with robustforge."]
    parts += ["## Load it", _usage(shape, trust), "## Robustness", *_measured(result, code)]
    return "\n\n".join(parts) + "\n"


def _usage(shape: Sequence[int], trust: Sequence[str]) -> str:
    words = ", ".join(json.dumps(name) for name in trust)
    trusted = f", trust=[{words}]" if trust else ""
    sizes = ", ".join(str(size) for size in shape)
    lines = [
        "```python",
        "import robustforge as rf",
        "",
        f'defense = rf.load_run("."{trusted})  # this folder; from the hub: huggingface_hub.snapshot_download(...)',
        f"output = defense(x)  # x: (B, {sizes}) float32 in [0, 1], not normalized",
        "output.logits, output.risk  # (B, K); a higher risk is more suspicious, None where the defense has none",
        "```",
    ]
    return "\n".join(lines)


def _measured(result: Mapping[str, Any] | None, code: Mapping[str, Any]) -> list[str]:
    trained = f"Trained by robustforge {code.get('version') or '(version unknown)'}, {_commit(code)}."
    if result is None:
        return ["The run was not evaluated: nothing is known of its robustness.", trained]
    measured = result.get("code") or code
    violated = sorted({name for cell in _own_worst(result) for name in cell.get("violated", ())})
    facts = {
        "protocol": result["protocol"],
        "images": f"{result['n_test']} of the {result['split']} split",
        "seed": result["seed"],
        "version": measured.get("version"),
        "commit": _commit(measured),
        "violated indicators": ", ".join(word.replace("_", " ") for word in violated) or "none",
    }
    table = markdown_run(dict(result)).replace("### ", "### Results of ", 1).rstrip()
    return ["\n".join(f"- {key}: {value}" for key, value in facts.items()), table, trained]


def _own_worst(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [cell for cell in result["worst_case"] if cell["system"] == result["defense"]]


def _commit(code: Mapping[str, Any]) -> str:
    if not code.get("commit"):
        return "no commit known"
    return f"commit {code['commit']}" + (" with changes" if code.get("modified") else "")
