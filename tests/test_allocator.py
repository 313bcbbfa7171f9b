"""Large blocks of memory are used again, and what images of many sizes leave behind goes back to the system."""

import os
import subprocess
import sys

import pytest

from PADing import allocator
from PADing.allocator import CHOICES, _glibc

pytestmark = pytest.mark.skipif(_glibc() is None, reason="no glibc here, or a variable has chosen for it")

START = """
import ctypes
from PADing import allocator

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]

def block(size):
    address = library.malloc(size)
    ctypes.memset(address, 1, size)
    return address

size, before = 2**26, allocator._resident()
"""


def grown(script, **variables):
    """By how many blocks of 64 MiB the process was larger, at each ``show()``."""
    show = "\nshow = lambda: print(round((allocator._resident() - before) / size, 1))\n"
    environment = {key: value for key, value in os.environ.items() if key not in CHOICES}
    words = [sys.executable, "-c", START + show + script]
    done = subprocess.run(words, env={**environment, **variables}, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


ONE_BLOCK = "address = block(size); show(); library.free(address); show()"


def test_a_large_block_is_kept_for_the_next():
    held, freed = grown(ONE_BLOCK)
    assert held >= 1 and freed >= 0.9


def test_the_users_choice_stays():
    held, freed = grown(ONE_BLOCK, MALLOC_MMAP_THRESHOLD_=str(2**25))
    assert held >= 1 and freed < 0.1
    held, freed = grown(ONE_BLOCK, GLIBC_TUNABLES=f"glibc.malloc.mmap_threshold={2**25}")
    assert held >= 1 and freed < 0.1


def test_forked_workers_keep_nothing():
    held, freed = grown(
        f"import os, sys\nif os.fork(): os.wait(); sys.exit()\nbefore = allocator._resident(); {ONE_BLOCK}"
    )
    assert held >= 0.9 and freed < 0.1


def test_what_lies_at_the_end_of_the_heap_is_kept_up_to_a_limit(monkeypatch):
    """Its effect is not tested: a small object of Python may lie behind the blocks, so that they are not at the end."""
    chosen = {}
    monkeypatch.setattr(allocator, "_choose", lambda library, values: chosen.update(values))
    monkeypatch.setattr(allocator.os, "register_at_fork", lambda **_: None)
    allocator.keep_memory()
    assert chosen == {allocator.M_MMAP_MAX: 0, allocator.M_TRIM_THRESHOLD: 2**29}


GAPS = """
allocator.GROWN = 4 * size
allocator.trim_memory()
pairs = [(block(size), block(2**20)) for _ in range(6)]
for large, _ in pairs: library.free(large)
show()
allocator.trim_memory()
show()
"""


def test_gaps_are_given_back_once_the_process_has_grown():
    held, trimmed = grown(GAPS)
    assert held >= 5.5 and trimmed < 0.5


def test_gaps_are_kept_before():
    held, trimmed = grown(GAPS.replace("4 * size", "8 * size"))
    assert held >= 5.5 and trimmed >= 5.5


def test_nothing_is_trimmed_against_the_users_choice():
    held, trimmed = grown(GAPS, MALLOC_MMAP_MAX_="0")
    assert held >= 5.5 and trimmed >= 5.5


def test_a_smaller_process_is_the_new_measure():
    held, trimmed = grown(
        "allocator.GROWN = 4 * size\n"
        "early = block(size * 12)\n"
        "allocator.trim_memory()\n"
        "library.free(early); library.malloc_trim(0)\n"
        "allocator.trim_memory()\n" + GAPS.split("\n", 3)[3]
    )
    assert held >= 5.5 and trimmed < 0.5
