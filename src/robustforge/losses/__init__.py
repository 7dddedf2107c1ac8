"""Losses: pure functions from tensors to a tensor."""
