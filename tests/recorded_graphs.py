"""Stands in for the compiler of ``torch.compile`` in tests."""

import functools

import pytest
import torch

from PADing.engine import compilation


def record_graphs(monkeypatch: pytest.MonkeyPatch) -> list:
    """The list of graphs that are compiled from now on. They run as they are, without a C++ compiler and minutes."""
    compiled = []

    def run_as_it_is(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=run_as_it_is))
    monkeypatch.setattr(compilation, "_obstacle", lambda device_type: "")
    return compiled
