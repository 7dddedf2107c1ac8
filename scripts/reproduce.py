"""A paper's table beside ours: ``python scripts/reproduce.py --help``."""

from robustforge.cli.reproduce import main

if __name__ == "__main__":
    main()
