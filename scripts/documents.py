"""Writes the tables of README, docs and LEADERBOARD from result files: ``python scripts/documents.py --help``."""

from robustforge.cli.documents import main

if __name__ == "__main__":
    main()
