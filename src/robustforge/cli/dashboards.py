"""Whether Weights & Biases can be reached: asked before training, because it notices only when all is done."""

from __future__ import annotations

import netrc
import os
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from robustforge.types import UserError

_SECONDS = 3.0
_OFFLINE = "set logger.offline=true (and run `wandb sync` later) or logger=csv"


def check_wandb(settings: Mapping[str, Any]) -> None:
    """Raises UserError where W&B is asked for and cannot be reached, or does not know who asks.

    Args:
        settings: the ``logger`` group.
    """
    if settings.get("offline") or os.environ.get("WANDB_MODE", "online") not in ("online", "shared", "run"):
        return
    import wandb

    server = urlsplit(str(wandb.setup().settings.base_url))
    host = str(server.hostname)
    if not _known(host):
        raise UserError(f"W&B ({host}) does not know you: run `wandb login`, or {_OFFLINE}.")
    proxy = None if proxy_bypass(host) else getproxies().get(server.scheme)
    door = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else server
    port = door.port or (80 if door.scheme == "http" else 443)
    if not _reachable(str(door.hostname), port):
        raise UserError(f"W&B ({host}) cannot be reached within {_SECONDS:g} s: {_OFFLINE}.")


def _known(host: str) -> bool:
    """Whether there are credentials, or a person who can be asked for them."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or sys.stdin.isatty():
        return True
    path = os.path.expanduser(os.environ.get("NETRC", "~/.netrc"))
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _reachable(host: str, port: int) -> bool:
    """Whether somebody answers in time. Looking up a name knows no limit of time, so that a thread does it."""
    answered = threading.Event()

    def knock() -> None:
        with suppress(OSError), socket.create_connection((host, port), _SECONDS):
            answered.set()

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answered.is_set()
