"""Tries in minutes all that needs a GPU: kernels, precisions, speed, memory. ``tools/gpu_check.py`` is its command.

Each step of ``plan`` is a process of its own with a time limit: a step that hangs or crashes costs nothing but itself.
The results are written after every step.
"""
