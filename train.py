"""Train, attack and report a defense: ``python train.py --help``."""

from robustforge.cli.train import main

if __name__ == "__main__":
    main()
