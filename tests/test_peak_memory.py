"""The peak of a process is its own."""

import subprocess
import sys

import pytest

from PADing import peak_memory

CHILD = "from PADing.peak_memory import peak_memory; x = b'x' * {} * 2**20; print(peak_memory() / 2**20, len(x))"
PARENT = """
import subprocess, sys
memory = b"x" * 2**30
print(subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True, check=True).stdout)
"""


def _peak(*command: str) -> float:
    out = subprocess.run([sys.executable, "-c", *command], capture_output=True, text=True, check=True).stdout
    return float(out.split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is what the system's getrusage says")
def test_the_memory_of_the_parent_does_not_count():
    of_parent, of_child = _peak(PARENT, CHILD.format(1)), _peak(CHILD.format(1))
    assert abs(of_parent - of_child) < 100 and of_child < 900


def test_what_the_process_uses_counts():
    assert 250 < _peak(CHILD.format(301)) - _peak(CHILD.format(1)) < 350


@pytest.mark.parametrize("status", [None, "", "VmRSS:\t5 kB\n"])
def test_a_system_that_does_not_tell(monkeypatch, status):
    """Sandboxes may lack ``/proc``, or some of its lines."""

    def read_text(path, **options):
        if status is None:
            raise FileNotFoundError(path)
        return status

    monkeypatch.setattr(peak_memory.Path, "read_text", read_text)
    assert peak_memory.memory_status("VmHWM") is None
    assert peak_memory.memory_status("VmRSS") == (5 * 1024 if status else None)
    assert peak_memory.peak_memory() > 2**23
