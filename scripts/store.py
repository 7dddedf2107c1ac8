"""What the store holds, whether it is whole, and what may go: ``python scripts/store.py --help``."""

from robustforge.cli.store import main

if __name__ == "__main__":
    main()
