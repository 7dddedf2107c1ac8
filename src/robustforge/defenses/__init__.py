"""Defenses: one file or folder each, all on :class:`robustforge.defenses.base.Defense`."""
