"""Baselines of PADing: each folder registers a generator of features for ``MODEL.MASK_FORMER.GENERATOR``."""
