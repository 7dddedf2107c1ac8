"""No defense: a plain classifier."""

from robustforge.defenses.none.module import PlainClassifier

__all__ = ["PlainClassifier"]
