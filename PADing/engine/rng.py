"""The state of all random generators that training uses, and contexts that keep or seed it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """The states of Python's, NumPy's, PyTorch's and (if there is one) the GPU's generator, as values and tensors."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "python": random.getstate(),
        # torch.load(weights_only=True) accepts tensors, but no arrays.
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the states of ``rng_state()``."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Restore the generators at the end of the block, so that more frequent evaluations do not change a training."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def derived_rng_state(*entropy: int) -> dict[str, Any]:
    """A state for ``set_rng_state`` that depends on whole numbers of at least 0."""
    with seeded_rng(*entropy):
        state = rng_state()
    if "cuda" in state:
        word = int(np.random.SeedSequence(entropy).generate_state(4)[3])
        state["cuda"] = torch.Generator(device="cuda").manual_seed(word).get_state()
    return state


@contextmanager
def seeded_rng(*entropy: int) -> Iterator[None]:
    """Seed the CPU's generators by ``entropy`` inside the block, and restore them at its end."""
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    # Not torch.manual_seed, which would seed the GPU's generator too.
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)
