"""The rules of CONTRIBUTING.md that a machine can hold: sizes, docstrings, spelling."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
TEXTS = [
    *(path for folder in ("src", "conf") for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")),
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
]
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

IZE = (
    *("categor", "character", "discret", "final", "general", "initial", "marginal", "maxim", "minim", "normal"),
    *("optim", "organ", "parametr", "penal", "polar", "quant", "random", "recogn", "regular", "serial", "standard"),
    *("summar", "symmetr", "token", "util", "vector", "visual"),
)
OR, DOUBLED = ("behavi", "col", "fav", "hon", "neighb"), ("cancel", "label", "model", "signal", "travel")
BRITISH = re.compile(  # each word in two parts, so that this file passes too
    "|".join((
        rf"(?:{'|'.join(IZE)})is(?:e|ing|ation)",
        rf"(?:{'|'.join(OR)})o" + "ur",
        rf"(?:{'|'.join(DOUBLED)})l" + "(?:ed|ing|er)",
        r"\bcent" + r"r(?:e|ed|es|ing)\b",
        r"(?:\b|_)gr" + r"ey(?:\b|_)",
        *("analy" + "s(?:ed|er|ing)", "artef" + "act", "def" + "ence", r"licen" + r"ce\b", r"program" + r"me\b"),
    )),
    re.IGNORECASE,
)  # fmt: skip
MISSPELT = re.compile(r"\bcente" + r"rd\b", re.IGNORECASE)


def definitions(tree, public=True):
    """(node, whether all names on the way to it are public and none is of a function) of everything defined."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, DEFINITIONS):
            seen = public and not node.name.startswith("_")
            yield node, seen
            yield from definitions(node, seen and isinstance(node, ast.ClassDef))
        else:
            yield from definitions(node, public)


def lines(node):
    return node.end_lineno - node.lineno + 1


def too_long(tree):
    """Functions of more than 50 lines; of public ones the docstring, which explains every argument, is not counted."""
    found = [(n, public) for n, public in definitions(tree) if not isinstance(n, ast.ClassDef)]
    return [n.name for n, public in found if lines(n) - (documented(n) if public else 0) > 50]


def documented(node):
    """Lines of its docstring."""
    return lines(node.body[0]) if ast.get_docstring(node) else 0


def undocumented(tree):
    """What is public, longer than 8 lines, and says nothing about itself."""
    return [n.name for n, public in definitions(tree) if public and lines(n) > 8 and not ast.get_docstring(n)]


def prose(path):
    """The text of a file; without the old names that the list of changes gives in backticks."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"`[^`\n]*`", "", text) if path.name == "CHANGELOG.md" else text


def test_the_rules_notice_a_breach():
    body = "".join(f"    x = {number}\n" for number in range(50))
    tree = ast.parse(
        f"def long():\n{body}\nclass Shown:\n    def _hidden(self):\n        def inner():\n{body.replace('    x', ' ' * 12 + 'x')}"
    )
    assert too_long(tree) == ["long", "_hidden", "inner"]
    assert undocumented(tree) == ["long", "Shown"]
    british = [
        "normal" + "isation",
        "beha" + "viour",
        "label" + "led",
        "GR" + "EY_WIDTHS",
        "cent" + "red",
        "defen" + "ces",
    ]
    assert all(BRITISH.search(word) for word in british)
    american = (
        "normalization behavior labeled gray centered center defenses programmed analyses licensed promise controlled"
    )
    assert BRITISH.search(american) is None
    assert MISSPELT.search("center" + "d")


def test_files_and_functions_are_short():
    assert len(SOURCE) > 100
    assert {str(path): n for path in SOURCE if (n := len(path.read_text().splitlines())) > 250} == {}
    assert {str(path): found for path in SOURCE if (found := too_long(ast.parse(path.read_text())))} == {}


def test_the_formatter_decides_the_layout():
    assert sum(path.read_text().count("fmt: skip") + path.read_text().count("fmt: off") for path in SOURCE) <= 10


def test_what_is_public_and_longer_than_a_glance_has_a_docstring():
    assert {str(path): found for path in SOURCE if (found := undocumented(ast.parse(path.read_text())))} == {}


def test_the_spelling_is_american():
    assert len(TEXTS) > 300
    found = {
        str(path.relative_to(ROOT)): [
            match.group() for rule in (BRITISH, MISSPELT) for match in rule.finditer(prose(path))
        ]
        for path in TEXTS
    }
    assert {path: words for path, words in found.items() if words} == {}
