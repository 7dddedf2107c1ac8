"""Records that several tests here read."""

from recorded import meta, small

__all__ = ["meta", "small"]
