"""The front door: attack or evaluate a model that one already has, or load one that was trained here.

Everything in it is also an attribute of the package: ``import robustforge as rf; rf.attack(...)``.
"""

from robustforge.api.attacking import attack
from robustforge.api.evaluating import evaluate
from robustforge.api.report import Report
from robustforge.api.runs import load_run
from robustforge.api.system import System, system

__all__ = ["Report", "System", "attack", "evaluate", "load_run", "system"]
