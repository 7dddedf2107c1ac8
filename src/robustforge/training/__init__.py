"""Runs a defense's stages: the artifact store, fits, crafting passes, and what several processes need."""
