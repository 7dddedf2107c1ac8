"""What a caller's function depends on, in plain values, so that measured cells are reused for the same one only."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sysconfig
import uuid
from types import CodeType
from typing import Any

from torch import Tensor, nn

from robustforge.fingerprint import weights_hash

_DEEPEST = 6


def describe_function(function: Any, depth: int = _DEEPEST) -> Any:
    """A description of a network, or of a function with all that it refers to.

    Args:
        function: what is to be described.
        depth: of functions in functions.

    Returns:
        Plain values. Where something in it has no stable description, a part of it is drawn at random: nothing that
        was measured with it is ever taken for something else.
    """
    if function is None or isinstance(function, bool | int | float | str):
        return function
    if isinstance(function, Tensor):
        return weights_hash({"": function})
    if isinstance(function, nn.Module):
        codes = {type(part).__qualname__: _code(type(part).forward) for part in function.modules() if not _known(part)}
        return {"layers": str(function), "weights": weights_hash(function.state_dict()), "code": codes}
    if inspect.ismodule(function) or isinstance(function, type) or inspect.isbuiltin(function):
        return getattr(function, "__qualname__", getattr(function, "__name__", ""))
    if depth:
        parts = _parts(function)
        if parts is not None:
            return [describe_function(part, depth - 1) for part in parts]
    return uuid.uuid4().hex


def _parts(value: Any) -> list[Any] | None:
    if isinstance(value, functools.partial):
        return [value.func, list(value.args), value.keywords]
    if inspect.ismethod(value):
        return [value.__func__, value.__self__]
    if inspect.isfunction(value):
        if _known(value):
            return [value.__module__, value.__qualname__]
        named = [value.__globals__.get(name) for name in value.__code__.co_names]
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [_code(value), *cells, *named, list(value.__defaults__ or ())]
    if isinstance(value, dict):
        return [str(sorted(map(str, value))), *(value[key] for key in sorted(value, key=str))]
    return list(value) if isinstance(value, list | tuple) else None


def _known(value: Any) -> bool:
    """Whether its code is an installed package's or Python's own, which cells do not depend on."""
    kind = value if inspect.isfunction(value) else type(value)
    try:
        place = inspect.getfile(kind)
    except (TypeError, OSError):  # typed at a prompt
        return False
    return any(place.startswith(sysconfig.get_path(key)) for key in ("stdlib", "purelib", "platlib"))


def _code(function: Any) -> str:
    """Hash of a function's instructions and constants."""
    code = getattr(function, "__code__", None)
    return "" if code is None else hashlib.sha256(_instructions(code)).hexdigest()[:16]


def _instructions(code: CodeType) -> bytes:
    plain = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
    inner = [_instructions(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return b"\n".join([code.co_code, repr(plain).encode(), " ".join(code.co_names).encode(), *inner])
