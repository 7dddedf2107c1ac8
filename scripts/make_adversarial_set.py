"""Attack a split once and keep the images: ``python scripts/make_adversarial_set.py --help``."""

from robustforge.cli.adversarial_set import main

if __name__ == "__main__":
    main()
