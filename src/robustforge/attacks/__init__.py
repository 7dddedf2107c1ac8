"""Attacks, written against surfaces: geometry, randomness, engine, and one file an attack."""
