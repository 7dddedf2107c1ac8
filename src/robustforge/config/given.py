"""Networks that were trained elsewhere, kept in the store of the run that takes them: it outlives their files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from robustforge.config.defenses import build_defense, parts
from robustforge.config.instantiate import build, without
from robustforge.config.restore import load_restored
from robustforge.config.tables import GIVEN
from robustforge.defenses.base import Defense
from robustforge.defenses.pretrained.weights import load_state, load_weights, unwrapped
from robustforge.fingerprint import key_of, weights_hash
from robustforge.training.store import ArtifactStore, save_modules
from robustforge.types import UserError

STAGE, WEIGHTS = "given", "weights.safetensors"  # under which the store keeps them
_EXAMPLE = "model=resnet18, or model=own for one of your own"


def keep_given(cfg: DictConfig, trust: str | Sequence[str] = ()) -> DictConfig:
    """The configuration with the networks of ``defense.undefended_from`` and ``defense.baseline`` kept in its store.

    Args:
        cfg: of a run, resolved, paths absolute. Both keys may name a run folder or a file of weights.
        trust: modules whose networks a run folder may build, see :func:`robustforge.config.trust.check_trusted`.

    Returns:
        A copy in which both are what the run's own defense and baseline are built from. Places in the store go by the
        weights, so that the same network under another path is the same run.

    Raises:
        UserError: there is no such file or run, it is not to be trusted, or its network is not the one wanted.
    """
    made = copy.deepcopy(cfg)
    for key, keep in zip(GIVEN, (_undefended, _baseline), strict=True):
        value = made.defense.get(key)
        if value is None or OmegaConf.is_config(value) or str(value).startswith(f"{cfg.paths.store_dir}/{STAGE}-"):
            continue
        path = Path(str(value)).expanduser().absolute()
        if not path.exists():
            raise UserError(f"defense.{key} is '{value}', which is not there: give a run folder or a file of weights.")
        with open_dict(made):
            made.defense[key] = keep(path, made, trust)
    return made


def _undefended(path: Path, cfg: DictConfig, trust: str | Sequence[str]) -> str:
    if "model" not in cfg.defense:
        raise UserError(f"defense.undefended_from is given, and {cfg.defense_name} trains no classifier: leave it out.")
    network: nn.Module = build(cfg.defense.model)().eval()
    if path.is_file():
        load_weights(network, path, "defense.undefended_from", _EXAMPLE)
    else:
        _, trained, data = load_restored(path, trust)
        source = getattr(trained, "undefended", trained.classifier_network())
        if source is None:
            raise UserError(f"The run {path} has no undefended classifier: give another, or a file of weights.")
        load_state(network, unwrapped(source).state_dict(), f"the run {path}", _EXAMPLE)
        _check_same(source, network, data.shape, path)
    return _kept(cfg, nn.ModuleDict({"undefended": unwrapped(network)}), ("undefended",))


@torch.no_grad()
def _check_same(source: nn.Module, network: nn.Module, shape: Sequence[int], path: Path) -> None:
    """Weights do not tell how images are normalized before them."""
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    if not torch.allclose(source(x), network(x), atol=1e-3):
        raise UserError(
            f"The weights of the run {path} fit model, which answers otherwise all the same: give it the normalization "
            "of that run (model.mean, model.std)."
        )


def _baseline(path: Path, cfg: DictConfig, trust: str | Sequence[str]) -> dict[str, Any]:
    """The configuration of a trained defense, and the file of all its weights."""
    if path.is_file():
        plain = _classifier(cfg.defense)
        baseline = build_defense(OmegaConf.create({**plain, "weights": str(path)}))
    else:
        run, baseline, _ = load_restored(path, trust)
        plain = _plain(run.defense)
    _check_answers(baseline, cfg.dataset, path)
    if "weights" in plain:  # they are kept with all others
        plain["weights"] = None
    return {"defense": plain, "weights": _kept(cfg, baseline, parts(baseline))}


def _plain(node: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(without(node, GIVEN), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _classifier(node: DictConfig) -> dict[str, Any]:
    """What a file of weights belongs to: the network of ``defense=pretrained``, or the model of any other defense."""
    plain = _plain(node)
    if "network" in plain and "weights" in plain:
        return plain
    if "model" not in plain:
        raise UserError("defense.baseline is a file of weights, and nothing says of which network: give a run folder.")
    return {"_target_": "robustforge.defenses.pretrained.Pretrained", "network": plain["model"]}


@torch.no_grad()
def _check_answers(baseline: Defense, dataset: DictConfig, path: Path) -> None:
    """Before anything is trained: whether it takes the run's images and knows its classes."""
    shape, classes = list(dataset.shape), int(dataset.num_classes)
    try:
        found = baseline(torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))).logits.shape[1]
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"defense.baseline={path} does not take images of shape {shape}: {reason}") from error
    if found != classes:
        raise UserError(f"defense.baseline={path} knows {found} classes and the data has {classes}: give another.")


def _kept(cfg: DictConfig, owner: nn.Module, names: tuple[str, ...]) -> str:
    """Path of the weights of ``owner``'s submodules ``names`` in the store, under a hash of their own."""
    store = ArtifactStore(str(cfg.paths.store_dir))
    described = {"stage": STAGE, "weights": {name: weights_hash(getattr(owner, name).state_dict()) for name in names}}
    key = key_of(described)
    with FileLock(store.lock_path(STAGE, key)):
        found = store.find(STAGE, key)
        if found is None:
            save_modules(store.workspace(STAGE, key) / WEIGHTS, owner, names)
            found = store.commit(STAGE, key, described, (WEIGHTS,))
    return str(found.folder / WEIGHTS)
