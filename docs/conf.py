"""Sphinx configuration: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from catalog import write_attacks, write_methods, write_protocols

ROOT = Path(__file__).resolve().parents[1]
write_attacks(ROOT / "conf" / "attack", ROOT / "docs" / "_generated" / "attacks.md")
write_methods(ROOT / "src" / "robustforge" / "defenses", ROOT / "docs" / "methods")
write_protocols(ROOT / "conf" / "protocol", ROOT / "docs" / "_generated" / "protocols.md")

project = "robustforge"
author = "the robustforge authors"
release = importlib.metadata.version("robustforge")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_generated"]  # generated pieces are included by the pages
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
html_theme = "furo"
html_title = f"robustforge {release}"
