"""Keys of measured cells: what a number depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from robustforge.attacks.core.surface import Surface
from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import CraftStage, FitStage
from robustforge.evaluation.protocol import Cell, Protocol
from robustforge.evaluation.rows import BASELINE
from robustforge.fingerprint import describe, key_of, method_sources, source_hash, sources_of, weights_hash
from robustforge.functions import describe_function
from robustforge.records.schema import SCHEMA


@dataclass
class CellKeys:
    """Keys of the cells of one evaluation.

    Attributes:
        defense: trained.
        data: the data module, set up.
        protocol: what is run.
        stages: key of every stage's product, by stage name; empty for a defense that was not trained here.
        baseline: the system of the row ``baseline``, or None.
    """

    defense: Defense
    data: ImageData
    protocol: Protocol
    stages: Mapping[str, str]
    baseline: Defense | None = None
    _weights: dict[int, str] = field(default_factory=dict, init=False)  # by the modules' identity

    def __call__(self, cell: Cell, images: int | None, lost: Iterable[int] = ()) -> str:
        """The key of one cell, 16 hexadecimal digits.

        Args:
            cell: what is measured.
            images: how many images the protocol asks for, None for all.
            lost: sample numbers that the attack leaves alone.

        Notes:
            The attacked networks count by their weights, so that another file under the same path is another system. A
            row that is named like a stage and holds nothing but that stage's networks (``undefended``) depends on that
            stage alone; every other row depends on all arguments of the defense and on its source.
        """
        description: dict[str, Any] = {
            "system": cell.system,
            "surface": cell.surface.name,
            "attack": describe(cell.attack),
            "threat": describe(cell.threat),
            "n": images,
            "seed": self.protocol.seed,
            "fpr": cell.rate,
            "threshold": self.protocol.threshold,
            "check": cell.check and [cell.check, self.protocol.checks_n],
            "blind": cell.blind,
            "data": self.data.fingerprint,
            "identity": self._identity(cell),
            "weights": self._hash(cell.surface.modules),
            "sources": sources_of(cell.attack) | _surface_sources(cell.surface),
            "columns": SCHEMA.names,
        }
        if self.protocol.columns != "full":
            description["lost"] = [int(number) for number in lost]
        return key_of(description)[:16]

    def _identity(self, cell: Cell) -> dict[str, Any]:
        if self.baseline is not None and cell.system == BASELINE:
            return _described_defense(self.baseline)
        if cell.system in self.stages and self._only_of_stage(cell):
            return {"stage": self.stages[cell.system]}
        return {"stages": dict(self.stages), **_described_defense(self.defense)}

    def _only_of_stage(self, cell: Cell) -> bool:
        """Whether the cell's networks are all products of the stage that its row is named after."""
        for owner in (*self.defense.built_on(), self.defense):
            for stage in owner.stages():
                if stage.name == cell.system and not isinstance(stage, CraftStage):
                    names = stage.trains if isinstance(stage, FitStage) else stage.fits
                    own = {id(part) for name in names for part in _tensors(getattr(owner, name))}
                    return all(id(part) in own for part in _tensors(cell.surface.modules))
        return False

    def _hash(self, modules: nn.Module) -> str:
        if id(modules) not in self._weights:
            self._weights[id(modules)] = weights_hash(modules.state_dict())
        return self._weights[id(modules)]


def _described_defense(defense: Defense) -> dict[str, Any]:
    try:
        arguments, sources = describe(defense), sources_of(defense)
    except TypeError:  # an argument without a name, which is described by its own code
        arguments, sources = {name: _described(value) for name, value in defense.arguments.items()}, {}
    return {"arguments": arguments, "sources": method_sources(type(defense), Defense) | sources}


def _described(value: Any) -> Any:
    """A value as :func:`describe` has it; functions without a name by their code."""
    try:
        return describe(value)
    except TypeError:
        return describe_function(value)


def _tensors(modules: nn.Module) -> list[Any]:
    return [*modules.parameters(), *modules.buffers()]


def _surface_sources(surface: Surface) -> dict[str, str]:
    """Hashes of the source of the modules in which a surface's functions are written."""
    functions = (surface.attacker_logits, surface.system, surface.attacker_output)
    modules = {getattr(function, "__module__", None) for function in functions if function is not None}
    found = {name: source_hash(name) for name in sorted(filter(None, modules))}
    return {name: digest for name, digest in found.items() if digest is not None}
