"""Measured comparisons with their bars: ``python scripts/bench.py --help``."""

from robustforge.cli.bench import main

if __name__ == "__main__":
    main()
