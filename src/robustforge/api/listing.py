"""What there is to name."""

from __future__ import annotations

from robustforge.config import named


def attack_names() -> list[str]:
    """Names that :func:`robustforge.attack` takes: the files of conf/attack, and torchattacks' classes.

    Example:
        >>> "pgd" in attack_names()
        True
    """
    return named.names("attack")


def protocols() -> list[str]:
    """Names that :func:`robustforge.evaluate` takes: the files of conf/protocol.

    Example:
        >>> "standard" in protocols()
        True
    """
    return named.names("protocol")
