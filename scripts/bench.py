"""Measured comparisons with their bars: ``python scripts/bench.py --help``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # benchmarks/ is no part of the installed package

from benchmarks.command import main

if __name__ == "__main__":
    main()
