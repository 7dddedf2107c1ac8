"""The description of the architecture names what is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
NUMBERS = {"Ten": 10, "Eleven": 11, "Twelve": 12, "Thirteen": 13, "Fourteen": 14, "Fifteen": 15, "Sixteen": 16}


def test_every_folder_has_its_line():
    named = set(re.findall(r"^\| `([a-z_/]+)/` \|", TEXT, flags=re.MULTILINE))
    package = ROOT / "src" / "robustforge"
    assert named - {"attacks/core", "src/robustforge"} == {path.parent.name for path in package.glob("*/__init__.py")}
    assert (package / "attacks" / "core").is_dir()


def test_the_walk_leads_through_files_that_exist_and_counts_them():
    walk = TEXT.split("## A walk")[1]
    steps = re.findall(r"^\d+\. `([^`]+)`", walk, flags=re.MULTILINE)
    assert NUMBERS[re.search(r"(\w+) files", walk).group(1)] == len(steps)
    assert [step for step in steps if not (ROOT / step).is_file()] == []
    for step, functions in re.findall(r"^\d+\. `([^`]+\.py)`: (.*)$", walk, flags=re.MULTILINE):
        for name in re.findall(r"`([A-Za-z_.]+)`", functions):
            assert name.rsplit(".", 1)[-1] in (ROOT / step).read_text(), f"{step} has no {name}"
