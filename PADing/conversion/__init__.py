"""Weights of other projects: read without running code, and renamed to the keys of this project's models."""
