"""Records that several tests here read."""

from recorded import detector, large, meta, small

__all__ = ["detector", "large", "meta", "small"]
