"""Attacks trained defenses and keeps one record a (sample, attack, surface)."""
