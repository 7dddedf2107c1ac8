"""One HTML page of a run, or of many: ``python scripts/report.py --help``."""

from robustforge.cli.report import main

if __name__ == "__main__":
    main()
