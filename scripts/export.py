"""A trained run as a folder of its own: ``python scripts/export.py --help``."""

from robustforge.cli.export import main

if __name__ == "__main__":
    main()
