"""Values against the type hints of whatever takes them; the hints' ranges are those of :mod:`robustforge.ranges`.

pydantic checks. It is imported with the first value, because ``--help`` and ``import robustforge`` need none.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from robustforge.types import UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_MADE = "what builds an object, with a _target_"
_PLAIN = (bool, int, float, str, type(None), Any)
_CONTAINERS = (list, dict, Sequence, Iterable, Mapping)


class Made:
    """Stands for any object that is no plain value, such as a network or an attack."""

    def __repr__(self) -> str:
        return "{...}"


def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Type hints of the parameters of a class or function, by name; those that cannot be looked up are left out."""
    of_class = inspect.isclass(target) and not is_dataclass(target)  # fields may be inherited from other modules
    try:
        return get_type_hints(target.__init__ if of_class else target, include_extras=True)
    except (NameError, TypeError, AttributeError):  # names of an `if TYPE_CHECKING`, or no hints at all
        return {}


def check_fields(settings: Any) -> None:
    """Checks the fields of a dataclass against their type hints; for ``__post_init__``.

    Raises:
        UserError: the first field that has another type, or is out of range.
    """
    kind = type(settings)
    for name, hint in _fields(kind):  # type: ignore[arg-type]  # classes have a hash
        problem = mistake(hint, getattr(settings, name))
        if problem:
            raise UserError(f"{kind.__name__}.{name} {problem}")


def mistake(hint: Any, value: Any, strangers: bool = False) -> str:
    """What is wrong with a value, as the end of a sentence; an empty text where nothing is.

    Args:
        hint: a type, such as ``PositiveInt | None``.
        value: to be checked, strictly: 1 is a float, but true is no int and '1' is no number.
        strangers: whether a hint of a class may stand for plain values too, which its users may convert.

    Example:
        >>> mistake(int, 2.5)
        'is 2.5: give a whole number.'
    """
    from pydantic import ValidationError

    if isinstance(value, numbers.Number) and hasattr(value, "item"):
        value = value.item()  # NumPy's
    try:
        _adapter(hint, strangers).validate_python(value)
    except ValidationError:
        wanted, known = _wanted(hint, strangers)
        return f"is {shown(value)}: give {wanted}{near_miss(value, known)}."
    return ""


def near_miss(word: Any, known: Collection[str]) -> str:
    """In brackets the known word that was probably meant; nothing where there is none, and never ``word`` itself.

    Example:
        >>> near_miss("linff", ["linf", "l2"])
        " (did you mean 'linf'?)"
    """
    close = nearest(word, known)
    return f" (did you mean '{close}'?)" if close else ""


def nearest(word: Any, known: Collection[str], cutoff: float = 0.6) -> str | None:
    """The known word that is most like ``word`` and not the same, if there is one."""
    others = sorted({one for one in known if one != word})
    close = difflib.get_close_matches(word, others, n=1, cutoff=cutoff) if isinstance(word, str) else []
    return close[0] if close else None


def shown(value: Any) -> str:
    """A value as it is written in a configuration, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


@functools.cache
def _fields(kind: Any) -> list[tuple[str, Any]]:
    hints = hints_of(kind)
    return [(field.name, hints[field.name]) for field in fields(kind) if field.init and field.name in hints]


@functools.lru_cache(maxsize=1024)
def _adapter(hint: Any, strangers: bool) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(_plain(hint, Any if strangers else _made()), config=config)


@functools.lru_cache(maxsize=1024)
def _wanted(hint: Any, strangers: bool) -> tuple[str, list[str]]:
    """What a hint asks for, in words, and the words that it lists."""
    schema = _adapter(hint, strangers).json_schema()
    return _described(schema), [word for part in schema.get("anyOf", [schema]) for word in _words(part)]


@functools.cache
def _made() -> Any:
    """A hint for what is no plain value."""
    from pydantic import PlainValidator, WithJsonSchema

    def check(value: Any) -> Any:
        if isinstance(value, bool | int | float | str | list | dict | tuple | None):
            raise ValueError
        return value

    return Annotated[Any, PlainValidator(check), WithJsonSchema({"type": "made"})]


def _plain(hint: Any, made: Any) -> Any:
    """A hint with every class that is none of plain values replaced by ``made``."""
    from pydantic import Strict

    origin, parts = get_origin(hint), get_args(hint)
    if any(hint is kind for kind in (*_PLAIN, *_CONTAINERS)) or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(_plain(parts[0], made), *parts[1:])]
    parts = tuple(part if part is Ellipsis else _plain(part, made) for part in parts)
    if origin in (Union, UnionType):
        return Union[parts]  # noqa: UP007 (made of a tuple)
    if origin is tuple:
        return Annotated[tuple[parts], Strict(False)]  # type: ignore[valid-type]  # YAML has lists
    return (
        origin[parts]
        if origin in _CONTAINERS or origin in map(get_origin, (Sequence[int], Mapping[str, int]))
        else made
    )


def _described(schema: Mapping[str, Any]) -> str:
    """What a JSON schema asks for, in words."""
    if "anyOf" in schema:
        parts = [_described(part) for part in schema["anyOf"]]
        return ", or ".join([", ".join(parts[:-1]), parts[-1]])
    words = list(_words(schema))
    if words:
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    kind = schema.get("type", "")
    if kind in ("integer", "number"):
        return f"a {'whole ' if kind == 'integer' else ''}number{_range(schema)}"
    if kind == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        length = f" of {least}{'' if least == most else ' or more'}" if least else ""
        return f"a list{length}, each {_described(items).replace(', or ', ' or ')}"
    if kind == "object":
        item = schema.get("additionalProperties")
        return f"values by name{f', each {_described(item)}' if isinstance(item, Mapping) else ''}"
    return {"boolean": "true or false", "string": "a text", "null": "null", "made": _MADE}.get(kind, "anything")


def _range(schema: Mapping[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if high is None and below is None:
        return f" of at least {low}" if low is not None else f" above {above}" if above is not None else ""
    left = f"[{low}" if low is not None else f"({above}"
    right = f"{high}]" if high is not None else f"{below})"
    return f" in {left}, {right}"


def _words(schema: Mapping[str, Any]) -> Iterator[str]:
    """The words that a schema lists."""
    yield from (str(word) for word in schema.get("enum", [schema["const"]] if "const" in schema else []))
