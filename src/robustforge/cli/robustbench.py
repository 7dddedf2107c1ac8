"""``export=robustbench``: an evaluation as RobustBench takes it, see its issue form "New external evaluation(s)".

It asks for a ``.pt`` tensor of adversarial images for the whole test set; a leaderboard entry is a JSON file of
``model_info``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from robustforge.attacks.core.surface import fooled
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.evaluation.drawing import IMAGES, answers_at_random
from robustforge.evaluation.protocol import Protocol
from robustforge.evaluation.runner import Evaluation
from robustforge.evaluation.worst_images import WorstImages, worst_images
from robustforge.files import atomic_write, write_json, write_text
from robustforge.records.table import same_eps
from robustforge.reporting.text import budget
from robustforge.types import Threat, UserError, radius

BOARDS = ("cifar10", "cifar100", "imagenet")
NORMS = {"linf": "Linf", "l2": "L2"}
# what only the person who submits knows
UNKNOWN = (
    "link",
    "name",
    "authors",
    "additional_data",
    "number_forward_passes",
    "venue",
    "architecture",
    "reported",
    "unreliable",
)


@dataclass(frozen=True)
class RobustBench:
    """Writes ``robustbench/`` into the folder of an evaluation.

    Attributes:
        eps: which of the protocol's budgets; None for the last, of which the result speaks.

    Raises:
        UserError: no such budget, or an evaluation that RobustBench does not take.
    """

    eps: float | str | None = None

    def threat(self, protocol: Protocol) -> Threat:
        """The budget that is exported."""
        budgets = list(protocol.budgets)
        budgets += [threat for suite in protocol.suites.values() for threat in suite.budgets or ()]
        if self.eps is None:
            return protocol.budgets[-1]
        wanted = radius(self.eps)
        for threat in budgets:
            if same_eps(threat.eps, wanted):
                return threat
        known = ", ".join(dict.fromkeys(budget(threat.eps, threat.norm) for threat in budgets))
        raise UserError(f"export_eps is {self.eps}, and the protocol attacks at {known}: choose one of these.")

    def check(self, name: str, defense: Defense, data: ImageData, protocol: Protocol) -> None:
        """Refuses what RobustBench does not take, before anything is attacked or written; it need not be trained.

        Args:
            name: of the defense's row.
            defense: on the CPU.
            data: set up.
            protocol: that it is to be evaluated by.
        """
        threat = self.threat(protocol)
        if threat.eps == 0 or not any(suite.attacks for suite in protocol.suites.values()):
            raise UserError(f"Protocol '{protocol.name}' attacks nothing: choose another one for export=robustbench.")
        if protocol.n_test is not None and protocol.n_test < len(data.test.labels):
            raise UserError("RobustBench wants the whole test set: set protocol.n_test=null for export=robustbench.")
        if data.limit_test is not None:
            raise UserError(
                f"RobustBench wants the whole test set, and the run knows {data.limit_test} images of it: train with "
                "dataset.limit_test=null for export=robustbench."
            )
        surface = defense.surfaces()["end_to_end"]
        few = torch.arange(min(IMAGES, len(data.test.labels)))
        x, y = data.test.pixels(few), data.test.labels[few]
        rejecting = protocol.threshold is not None or protocol.rates != (None,)
        if rejecting and fooled(surface, x, y)[1].risk is not None:
            raise UserError(
                f"RobustBench has no systems that reject, and {name} does in this protocol: set "
                "protocol.false_positive_rate=null and protocol.threshold=null, which accept everything."
            )
        if answers_at_random(surface, x, y):
            raise UserError(f"RobustBench takes deterministic systems alone, and {name} answers at random.")

    def write(self, evaluation: Evaluation, result: Mapping[str, Any], folder: Path) -> Path:
        """Writes images, claim and the text of the issue, and prints what is left to do.

        Args:
            evaluation: that was run.
            result: of it, see :func:`robustforge.reporting.result.make_result`.
            folder: that holds its ``records.parquet``.

        Returns:
            ``<folder>/robustbench``, with ``adv_complete.pt`` (N, C, H, W) float32 in [0, 1], ``claim.json`` and
            ``issue.md``.
        """
        threat = self.threat(evaluation.protocol)
        found = worst_images(evaluation, folder / "records.parquet", threat)
        place = folder / "robustbench"
        with atomic_write(place / "adv_complete.pt") as temporary:
            torch.save(found.images, temporary)
        told = claim(result, evaluation.data.name, threat, found)
        write_json(place / "claim.json", told)
        write_text(place / "issue.md", issue(told, threat, evaluation.protocol.name))
        said = [f"For RobustBench: {place}, {found.accuracy:.2f} % of {len(found.wrong)} images are robust."]
        said.append(f"Fill in claim.json what nothing here tells (null): {', '.join(UNKNOWN)}.")
        if evaluation.data.name not in BOARDS:
            said.append(f"It has leaderboards of {', '.join(BOARDS)}, and this is {evaluation.data.name}.")
        auto = told["autoattack_acc"]
        if auto is None or float(auto) <= found.accuracy:
            said.append("It takes evaluations that find less than AutoAttack, which this one does not show.")
        Console().print("\n".join(said), soft_wrap=True)
        return place


def claim(result: Mapping[str, Any], dataset: str, threat: Threat, found: WorstImages) -> dict[str, Any]:
    """The fields of ``model_info/<dataset>/<threat>/<name>.json``, null where only the reader knows.

    Args:
        result: of the evaluation.
        dataset: name of the data set.
        threat: budget of the images.
        found: the images.
    """
    mine = [cell for cell in result["cells"] if cell["system"] == result["defense"] and cell.get("rate") is None]
    clean = next(cell["accuracy"] for cell in mine if cell["attack"] == "clean")
    auto = [
        cell["accuracy"]
        for cell in mine
        if (cell["attack"], cell["surface"], cell["norm"]) == ("auto", "end_to_end", threat.norm)
        and same_eps(cell["eps"], threat.eps)
    ]
    version = (result.get("code") or {}).get("version")
    known = {
        "dataset": dataset,
        "eps": budget(threat.eps, threat.norm),
        "clean_acc": f"{clean:.2f}",
        "autoattack_acc": f"{auto[0]:.2f}" if auto else None,
        "external": f"{found.accuracy:.2f}",
        "footnote": f"{found.accuracy:.2f}% robust accuracy is due to {', '.join(found.attacks) or 'no attack'} "
        f"(protocol {result['protocol']} of robustforge {version}, seed {result['seed']}).",
    }
    order = (*UNKNOWN[:5], "dataset", "venue", "architecture", "eps", "clean_acc", "reported", "autoattack_acc")
    return {name: known.get(name) for name in (*order, "external", "footnote", "unreliable")}


def issue(told: Mapping[str, Any], threat: Threat, protocol: str) -> str:
    """The text of RobustBench's issue "New external evaluation(s)", to be completed."""
    lines = [
        "## Target model",
        "+ **Model identifier(s):** (as in the Model Zoo)",
        f"+ **Leaderboard(s):** {told['dataset']}, {NORMS[threat.norm]}, eps = {told['eps']}",
        "",
        "## New evaluation",
        "+ **Link to adversarial images:** (to adv_complete.pt, float32 in [0, 1] in the order of the test set)",
        f"+ **Robust accuracy:** {told['external']}%",
        "+ **Author(s):**",
        f"+ **Description of the method used:** {told['footnote']} Of each image the one of the first attack that "
        f"turned it, attacks that turned more first; the clean image where none did. Protocol: {protocol}.",
    ]
    return "\n".join(lines) + "\n"
