"""The front door: attack or evaluate a model that one already has, or load one that was trained here.

Everything in it is an attribute of the package: ``import robustforge as rf; rf.attack(...)``.
"""
