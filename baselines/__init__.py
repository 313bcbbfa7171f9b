"""Baselines of PADing: each folder registers a feature generator for ``MODEL.MASK_FORMER.GENERATOR``."""
