"""Three small OmegaConf resolvers, and one ``attack`` option for each class of torchattacks."""

from __future__ import annotations

import hashlib
import re
from functools import cache

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from robustforge.config.identity import naming_overrides

_LONGEST = 80
_FRACTION = re.compile(r"(?<==)(\d+)/(?=\d+(,|$))")

# The attack classes of torchattacks 3.5.1. Written down, because importing it takes seconds and it may be absent: every
# command would wait for it, --help included. Another version's classes: attack=torchattacks/PGD attack.attack=<Name>.
TORCHATTACKS = [
    "APGD",
    "APGDT",
    "AutoAttack",
    "BIM",
    "CW",
    "DIFGSM",
    "DeepFool",
    "EADEN",
    "EADL1",
    "EOTPGD",
    "FAB",
    "FFGSM",
    "FGSM",
    "GN",
    "JSMA",
    "Jitter",
    "LGV",
    "MIFGSM",
    "NIFGSM",
    "OnePixel",
    "PGD",
    "PGDL2",
    "PGDRS",
    "PGDRSL2",
    "PIFGSM",
    "PIFGSMPP",
    "Pixle",
    "RFGSM",
    "SINIFGSM",
    "SPSA",
    "SparseFool",
    "Square",
    "TIFGSM",
    "TPGD",
    "UPGD",
    "VANILA",
    "VMIFGSM",
    "VNIFGSM",
]


def fraction(numerator: float, denominator: float) -> float:
    """``${frac:8,255}``: a radius as people write it."""
    return float(numerator) / float(denominator)


def run_folder(overrides: str) -> str:
    """``${run_folder:...}``: a folder name from overrides, readable, file-system safe and the same every time.

    The same command therefore finds its own run folder again, which is how a killed run continues.

    Args:
        overrides: joined by commas, see :func:`robustforge.config.identity.naming_overrides`.
    """
    if not overrides:
        return "default"
    # no '=' and ',' in the name: Hydra's grammar would want quotes around it in run=<folder>
    plain = _FRACTION.sub(r"\1_", overrides).replace("=", "-").replace(",", "_")
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", plain)
    if readable == plain and len(readable) <= _LONGEST:
        return readable
    digest = hashlib.sha256(overrides.encode()).hexdigest()[:8]
    return f"{readable[:_LONGEST]}-{digest}"


@cache
def register() -> None:
    """Makes the resolvers known to OmegaConf, and ``attack=torchattacks/<Name>`` to Hydra."""
    OmegaConf.register_new_resolver("frac", fraction, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("naming_overrides", naming_overrides, replace=True)
    store = ConfigStore.instance()
    for name in TORCHATTACKS:
        node = {
            "_target_": "robustforge.attacks.torchattacks.TorchAttack",
            "attack": name,
            "options": {},
            "early_stop": True,
        }
        store.store(group="attack/torchattacks", name=name, node=node, provider="torchattacks")
