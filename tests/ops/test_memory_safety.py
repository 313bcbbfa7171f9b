"""The kernels stay inside their arrays: a NaN location must not become a crash, or a look into foreign memory."""

import subprocess
from pathlib import Path

import pytest

from PADing.modeling.pixel_decoder.ops import build

HERE = Path(__file__).parent


def _sanitised(compiler: str, tmp_path: Path, sources: list, *options: str) -> str:
    """Compile with AddressSanitizer and UndefinedBehaviorSanitizer, run, and return what was printed."""
    flags = ["-std=c++17", "-O1", "-g", "-Wno-psabi", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    command = [compiler, *flags, probe, "-o", tmp_path / "probe"]
    if subprocess.run(command, capture_output=True).returncode or subprocess.run([tmp_path / "probe"]).returncode:
        pytest.skip("this compiler comes without AddressSanitizer (libasan)")
    program = tmp_path / "program"
    subprocess.run([str(w) for w in (compiler, *flags, *options, *sources, "-o", program)], check=True)
    result = subprocess.run([program], capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


@pytest.mark.slow
def test_cpu_kernel_under_address_sanitizer(compiler, tmp_path):
    folder = build.SOURCES / "cpu"
    sources = [HERE / "memory_safety.cpp", *sorted(folder.glob("variant_*.cpp"))]
    assert "runs of" in _sanitised(compiler, tmp_path, sources, "-I", str(folder))
