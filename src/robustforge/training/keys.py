"""Keys of what stages produce: the hash of all that a product depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from robustforge.data.datamodule import ImageData
from robustforge.defenses.base import Defense
from robustforge.defenses.stages import CalibrateStage, CraftStage, FitStage, Stage
from robustforge.fingerprint import describe, method_sources, source_hash, sources_of


def describe_stage(
    stage: Stage, owner: Defense, data: ImageData, keys: Mapping[str, str], limits: Mapping[str, Any]
) -> dict[str, Any]:
    """All that a stage's product depends on, in plain values.

    Args:
        stage: one of ``owner``'s.
        owner: the defense that declares it.
        data: the data module, set up.
        keys: of the products that earlier stages made, by stage name.
        limits: settings of the trainer; see :class:`robustforge.training.runner.StageRunner`.
    """
    values = _values(stage, owner)
    description: dict[str, Any] = {
        "stage": stage.name,
        "seed": owner.seed,
        "data": data.fingerprint,
        "arguments": describe(values),
        "settings": describe(stage.settings),
        "uses": {name: keys[name] for name in stage.uses},
    }
    if isinstance(stage, CraftStage):
        how: dict[str, Any] = {"limit": craft_limit(limits), "batch": craft_batch(limits, data)}
        extra: dict[str, Any] = {"attack": stage.attack, "threat": stage.threat, **how, **_machine(limits)}
    elif isinstance(stage, CalibrateStage):
        extra = {"split": stage.split, "batch": data.eval_batch_size, **_machine(limits)}
    else:
        extra = {"training": stage.training, "best": stage.best, "average": stage.average, "rates": dict(stage.rates)}
        augment = data.augment if stage.erasing else data.augment.without_erasing()
        batches = {"batch_size": data.batch_size, "augment": augment, "seed": data.seed}
        if stage.best is not None:  # it is chosen by sums over these batches
            batches["eval_batch_size"] = data.eval_batch_size
        adversarial = keys[stage.adversarial_set] if stage.adversarial_set else None
        if stage.replays > 1:
            batches["replays"] = stage.replays
        description |= {"batches": describe(batches), "limits": dict(limits), "adversarial": adversarial}
    return {**description, **describe(extra), "sources": _sources(stage, owner, [values, stage.settings, extra])}


def craft_limit(limits: Mapping[str, Any]) -> int | None:
    """Batches that a crafting pass is limited to, when the trainer is limited to a number of batches."""
    if limits.get("fast_dev_run"):
        return 1
    batches = limits.get("limit_train_batches")
    return batches if isinstance(batches, int) and not isinstance(batches, bool) else None


def craft_batch(limits: Mapping[str, Any], data: ImageData) -> int:
    """Images that are attacked together. Rounding, and some attacks, depend on it."""
    return data.batch_size if craft_limit(limits) else data.eval_batch_size


def _machine(limits: Mapping[str, Any]) -> dict[str, Any]:
    """What rounding depends on, of passes that no trainer makes."""
    return {"threads": limits.get("threads")}


def _values(stage: Stage, owner: Defense) -> dict[str, Any]:
    """The constructor arguments that the stage depends on, by name."""
    if _shared(stage):
        return {}
    others = [name for name in owner.arguments if name not in ("seed", *owner.evaluation_only)]
    if stage.takes is None:
        return {name: owner.arguments[name] for name in others}
    named = _roots([path for each in owner.stages() for path in each.takes or ()])
    taken = dict.fromkeys([*stage.takes, *(name for name in others if name not in named)])
    return {path: _select(owner.arguments, path) for path in taken}


def _select(arguments: Mapping[str, Any], path: str) -> Any:
    """An argument, or a part of it: ``fusion.per_class`` is a field of the argument ``fusion``."""
    name, *fields = path.split(".")
    value = arguments[name]
    for field in fields:
        value = value[field] if isinstance(value, Mapping) else getattr(value, field)
    return value


def _shared(stage: Stage) -> bool:
    return not isinstance(stage, CalibrateStage) and stage.shared


def _roots(paths: Sequence[str]) -> set[str]:
    return {path.split(".", 1)[0] for path in paths}


def _sources(stage: Stage, owner: Defense, values: list[Any]) -> dict[str, str]:
    """Hashes of the source that the product depends on, by module or method folder."""
    found = sources_of(*values)
    module = _module_of(_function(stage))
    own = source_hash(module)
    found |= {module: own} if own else {}
    if _shared(stage):
        return found
    return {**found, **method_sources(type(owner), Defense)}


def _function(stage: Stage) -> Callable[..., Any]:
    if isinstance(stage, FitStage):
        return stage.losses
    return stage.surface if isinstance(stage, CraftStage) else stage.fit


def _module_of(function: Callable[..., Any]) -> str:
    return _module_of(function.func) if isinstance(function, partial) else str(function.__module__)
