"""Checks an installation, its devices, data and store, and says what to do: ``python scripts/doctor.py --help``."""

from robustforge.cli.doctor import main

if __name__ == "__main__":
    main()
