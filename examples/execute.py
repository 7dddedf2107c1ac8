"""Executes notebooks with plain Python and keeps what they print and draw: ``python examples/execute.py [FILE ...]``.

No Jupyter is needed for that. To read them with one: ``jupyter lab examples``.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
DPI = 72


def execute(path: Path) -> dict[str, Any]:
    """Runs the code cells of a notebook from top to bottom, in the current folder.

    Args:
        path: of the notebook.

    Returns:
        The notebook with the outputs of this execution: what was printed, the value of a cell's last expression
        (unless a semicolon follows), and open figures as PNG.
    """
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = _outputs("".join(cell["source"]), names, f"{path.name}, cell {count}")
    return notebook


def _outputs(source: str, names: dict[str, Any], where: str) -> list[dict[str, Any]]:
    tree, printed, value = ast.parse(source), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, where, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), where, "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        found.append({"output_type": "stream", "name": "stdout", "text": text})
    for number in plt.get_fignums():
        png = io.BytesIO()
        plt.figure(number).savefig(png, format="png", dpi=DPI, bbox_inches="tight")
        data = {"image/png": base64.b64encode(png.getvalue()).decode()}
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    plt.close("all")
    if value is not None and not source.rstrip().endswith(";"):
        text = repr(value).splitlines(keepends=True)
        found.append({"output_type": "display_data", "data": {"text/plain": text}, "metadata": {}})
    return found


def main(arguments: list[str]) -> None:
    """Executes the notebooks, or all beside this file, and writes them with their outputs."""
    for path in [Path(name) for name in arguments] or sorted(HERE.glob("*.ipynb")):
        text = json.dumps(execute(path), indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
