"""Attack a trained run: ``python scripts/evaluate.py --help``."""

from robustforge.cli.evaluate import main

if __name__ == "__main__":
    main()
