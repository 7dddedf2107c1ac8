"""The notebooks in examples/ run from top to bottom, and what is committed with them is small and without errors."""

import base64
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MOST = 150_000  # bytes


def executor():
    spec = importlib.util.spec_from_file_location("execute", ROOT / "examples" / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(notebook):
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed(path):
    assert path.stat().st_size < MOST
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "executed from top to bottom"
    assert figures(notebook)
    assert all(base64.b64decode(png).startswith(b"\x89PNG") for png in figures(notebook))
    told = json.dumps([cell["outputs"] for cell in code])
    assert "Traceback" not in told
    assert str(ROOT) not in told, "where somebody has the checkout"


def test_there_are_four_and_the_documentation_links_them():
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == 4
    assert all(f"../examples/{path.name}" in page for path in NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, kept = executor().execute(path), json.loads(path.read_text(encoding="utf-8"))
    assert len(figures(made)) == len(figures(kept))
    text = [["".join(out.get("text", "")) != "" for out in cell.get("outputs", ())] for cell in made["cells"]]
    assert text == [["".join(out.get("text", "")) != "" for out in cell.get("outputs", ())] for cell in kept["cells"]]


def test_outputs_are_what_was_printed_drawn_and_last(tmp_path):
    cell = {
        "cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "id": "c",
        "source": ["import matplotlib.pyplot as plt\n", "print('hello')\n", "plt.plot([1, 2])\n", "40 + 2"],
    }  # fmt: skip
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    (done,) = executor().execute(path)["cells"]
    printed, drawn, last = done["outputs"]
    assert printed["text"] == ["hello\n"]
    assert base64.b64decode(drawn["data"]["image/png"]).startswith(b"\x89PNG")
    assert last["data"]["text/plain"] == ["42"]
