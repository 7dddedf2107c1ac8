"""Work that may fail without losing what is finished, such as pictures of results."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Ends its block at an error, with a warning that names ``what`` and the reason; the program goes on.

    Example:
        >>> with optional("figure roses"):
        ...     raise ValueError("no ink")
    """
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        log.warning("%s is left out: %s", what, reason)
        log.debug("%s", what, exc_info=error)
