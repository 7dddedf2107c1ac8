"""Train, attack and honestly compare defenses against adversarial examples.

>>> import robustforge as rf
>>> sorted(name for name in dir(rf) if name[0].islower())
['attack', 'attack_names', 'attacks', 'evaluate', 'load_run', 'protocols', 'system']
"""

import importlib
import os
from typing import Any

# OpenMP's threads spin while they wait. On cores shared with anything else (a second run, a test, a noisy neighbor)
# that was seen to slow small networks about tenfold; what sleeping costs on idle cores was not measured. It is read
# once, when torch loads, so it must be set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# what `import robustforge as rf` offers, and where it lies; loaded when it is first asked for
_OFFERED = {
    "attack": "robustforge.api.attacking",
    "evaluate": "robustforge.api.evaluating",
    "load_run": "robustforge.api.runs",
    "system": "robustforge.api.system",
    "Report": "robustforge.api.report",
    "attack_names": "robustforge.api.listing",
    "protocols": "robustforge.api.listing",
    "AttackResult": "robustforge.types",
    "Threat": "robustforge.types",
    "UserError": "robustforge.types",
    "Defense": "robustforge.defenses.base",
}


def __getattr__(name: str) -> Any:
    if name == "attacks":
        return importlib.import_module("robustforge.attacks")
    if name not in _OFFERED:
        raise AttributeError(f"module 'robustforge' has no attribute '{name}'; it offers {', '.join(__dir__())}.")
    value = getattr(importlib.import_module(_OFFERED[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_OFFERED, "attacks"])
