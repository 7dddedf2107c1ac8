"""Loops and groups in a table's specification: one written item stands for many.

    for: {n: [1, 2, 4]}     an item with ``for`` is repeated for every combination of its variables, and ``{n}`` in its
    label: "N = {n}"        names and values becomes the variable's value

    system: mrr             an item with ``each`` is a group: its other keys belong to every item in it that lacks them.
    each: [...]             With ``for`` the whole group is repeated. The name of a group in a mapping is dropped.

A value that is ``"{n}"`` alone keeps the variable's type, and a list in a list adds its items; ``{eps:.2f}`` writes two
decimals. A variable may be a mapping, ``for: {data: [{id: mnist, name: MNIST}]}``, whose entries are ``{data.id}`` and
``{data.name}``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from robustforge.papers.parsing import did_you_mean

_PLACEHOLDER = re.compile(r"\{(\w+(?:\.\w+)?)(?::(\.\d+f))?\}")
Variables = Mapping[str, Any]


def expand(node: Any, variables: Variables | None = None) -> Any:
    """The same data without loops and groups.

    Args:
        node: mappings, lists and scalars, as YAML gives them.
        variables: of the loops around it; text outside of loops is left as it is.

    Raises:
        ValueError: a placeholder names no variable, or two repetitions have one name.
    """
    variables = variables or {}
    if isinstance(node, str):
        return _fill(node, variables) if variables else node
    if isinstance(node, list):
        expanded_list: list[Any] = []
        for item in node:
            for _, made in _repeat(None, item, variables):
                spliced = isinstance(item, str) and isinstance(made, list)
                expanded_list += made if spliced else [made]
        return expanded_list
    if not isinstance(node, Mapping):
        return node
    expanded: dict[str, Any] = {}
    for name, item in node.items():
        for key, made in _repeat(name, item, variables):
            if key in expanded:
                raise ValueError(f"'{key}' is there twice: write the loop's variables into '{name}'.")
            expanded[key] = made
    return expanded


def _repeat(name: str | None, item: Any, variables: Variables) -> Iterator[tuple[Any, Any]]:
    """(name, value) of every item that one stands for; the last variable of a loop changes fastest."""
    if not isinstance(item, Mapping) or not {"for", "each"} & item.keys():
        yield expand(name, variables), expand(item, variables)
        return
    shared = {key: value for key, value in item.items() if key not in ("for", "each")}
    loop = expand(item.get("for", {}), variables)
    for values in itertools.product(*loop.values()):
        inner = {**variables, **dict(zip(loop, values, strict=True))}
        made = expand(shared, inner)
        if "each" not in item:
            yield expand(name, inner), made
            continue
        group = expand(item["each"], inner)
        members = group.items() if isinstance(group, Mapping) else ((None, member) for member in group)
        yield from ((key, {**made, **member} if made else member) for key, member in members)


def _fill(text: str, variables: Variables) -> Any:
    known = dict(variables)
    for name, value in variables.items():
        if isinstance(value, Mapping):
            known |= {f"{name}.{entry}": inner for entry, inner in value.items()}

    def value_of(match: re.Match[str]) -> Any:
        if match[1] not in known:
            raise ValueError(f"There is no loop variable '{match[1]}' for '{text}'{did_you_mean(match[1], known)}")
        return known[match[1]] if match[2] is None else format(known[match[1]], match[2])

    alone = _PLACEHOLDER.fullmatch(text)
    return value_of(alone) if alone else _PLACEHOLDER.sub(lambda match: str(value_of(match)), text)
