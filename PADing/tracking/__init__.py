"""Sends a training to experiment trackers (Weights & Biases, MLflow, Trackio) without any risk for the training.

A service is only ever touched by a process of its own (``worker``). The training writes to a pipe that cannot block it,
and ends that process if it does not finish in time. So no service can crash, stop or slow down a training.
"""
