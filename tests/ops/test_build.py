"""The kernel is built once, by whoever comes first, and nobody without a compiler is stopped."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from PADing.errors import UserError
from PADing.modeling.pixel_decoder.ops import available_backends, backends, build

OPS = Path(build.__file__).parent
REPOSITORY = OPS.parents[3]

USE = """
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
import torch
from PADing.modeling.pixel_decoder.ops import MSDeformAttn, backends
module = MSDeformAttn(16, 1, 2, 2)
x = torch.ones(1, 6, 16, requires_grad=True)
for _ in range(2):
    module(x, torch.full((1, 6, 1, 2), 0.5), x, [(2, 3)]).sum().backward()
print("backend", backends.select("cpu"))
"""


def _python(code: str, **environment: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _output(process: subprocess.Popen) -> str:
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 0, text
    return text


def test_without_a_compiler_one_warning_and_pytorch(tmp_path):
    text = _output(_python(USE, PATH=str(tmp_path), TORCH_EXTENSIONS_DIR=str(tmp_path), CXX="c++"))
    if (OPS / "lib" / build.library_name("cpu")).exists():
        pytest.skip("the kernel is built ahead of time here")
    assert "backend pytorch" in text
    assert text.count("WARNING") == 1
    assert "no C++ compiler" in text and "make.sh" in text


def test_a_failing_compiler_is_quoted(tmp_path):
    compiler = tmp_path / "broken-c++"
    compiler.write_text("#!/bin/sh\n[ $# -gt 2 ] || exit 0\necho 'this compiler is out of order' >&2\nexit 1\n")
    compiler.chmod(0o755)
    text = _output(_python(USE, CXX=str(compiler), TORCH_EXTENSIONS_DIR=str(tmp_path)))
    if (OPS / "lib" / build.library_name("cpu")).exists():
        pytest.skip("the kernel is built ahead of time here")
    assert "backend pytorch" in text and "out of order" in text


@pytest.mark.slow
def test_many_processes_build_once(compiler, tmp_path):
    """Eight ranks of a training job start at the same moment on a fresh machine."""
    processes = [_python(USE, TORCH_EXTENSIONS_DIR=str(tmp_path)) for _ in range(3)]
    texts = [_output(process) for process in processes]
    assert all("backend cpu" in text for text in texts)
    assert sum("Compiling the CPU kernel" in text for text in texts) == 1
    assert len(list((tmp_path / "pading-msda").glob("*.so"))) == 1


def test_an_interrupted_build_does_not_block_the_next(compiled_cpu, tmp_path, monkeypatch):
    """A lock file left behind by a killed process must not hang everybody for ever."""
    built = build.libraries("cpu")[0]
    target = tmp_path / build.library_name("cpu")
    (tmp_path / f"{target.stem}.lock").write_text("left behind")
    monkeypatch.setattr(build, "_compile", lambda kind, path: path.write_bytes(built.read_bytes()))
    assert build.build("cpu", tmp_path) == target


def test_changed_sources_are_built_anew(monkeypatch, tmp_path):
    sources = tmp_path / "src"
    for path in sorted((OPS / "src" / "cpu").iterdir()):
        (sources / "cpu").mkdir(parents=True, exist_ok=True)
        (sources / "cpu" / path.name).write_bytes(path.read_bytes())
    name = build.library_name("cpu")
    monkeypatch.setattr(build, "SOURCES", sources)
    assert build.library_name("cpu") == name
    with open(sources / "cpu" / "kernel.h", "a") as file:
        file.write("// another thought\n")
    assert build.library_name("cpu") != name


@pytest.mark.parametrize(
    "forced, message",
    [("gpu", "not a backend"), ("cuda", "tensors are on cpu")],
)
def test_a_backend_that_cannot_be_forced_is_an_error(monkeypatch, forced, message):
    """Silently using another one would spoil a benchmark or hide a broken installation."""
    monkeypatch.setenv(backends.ENVIRONMENT, forced)
    with pytest.raises(UserError, match=message):
        backends.select("cpu")


def test_forcing_a_kernel_that_cannot_be_built_is_an_error(tmp_path):
    code = USE.replace("import torch\n", "import torch\nfrom PADing.errors import UserError\n", 1)
    environment = {
        "PATH": str(tmp_path),
        "TORCH_EXTENSIONS_DIR": str(tmp_path),
        "CXX": "c++",
        backends.ENVIRONMENT: "cpu",
    }
    process = _python(code, **environment)
    text = process.communicate(timeout=600)[0]
    if (OPS / "lib" / build.library_name("cpu")).exists():
        pytest.skip("the kernel is built ahead of time here")
    assert process.returncode != 0 and "UserError" in text and "no C++ compiler" in text and "make.sh" in text


def test_forcing_pytorch_needs_no_kernel(monkeypatch):
    monkeypatch.setenv(backends.ENVIRONMENT, "pytorch")
    assert backends.select("cpu") == backends.select("cuda") == "pytorch"
    assert backends.select("meta") == "pytorch"


def test_the_list_of_backends(compiled_cpu):
    found = available_backends()
    assert list(found) == ["cpu", "cuda", "pytorch"]
    assert found["cpu"] == found["pytorch"] == "ready"
    if torch.version.cuda is None:
        assert "no CUDA" in found["cuda"]


def test_errors_inside_a_kernel_are_raised(compiled_cpu):
    """A kernel that fails must never be replaced by another behind the user's back."""
    value, locations = torch.zeros(1, 4, 1, 2), torch.zeros(1, 3, 1, 1, 1, 2)
    with pytest.raises(ValueError, match="does not fit into the 4 pixels"):
        torch.ops.pading_msda.cpu_forward(value, [2, 3, 0], locations, torch.zeros(1, 3, 1, 1, 1))
    with pytest.raises(ValueError, match="do not fit together"):
        torch.ops.pading_msda.cpu_forward(value, [2, 2, 0, 1, 1, 0], locations, torch.zeros(1, 3, 1, 1, 1))
    with pytest.raises(TypeError, match="no CPU kernel for values of type"):
        torch.ops.pading_msda.cpu_forward(value.int(), [2, 2, 0], locations, torch.zeros(1, 3, 1, 1, 1))


def test_self_check(compiled_cpu):
    process = subprocess.run(
        [sys.executable, "-m", "PADing.modeling.pixel_decoder.ops"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    lines = {line.split()[0]: line for line in process.stdout.splitlines()}
    assert lines["cpu"].endswith("ok") and "cuda" in lines and "ready" in lines["pytorch"]


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_every_instruction_set_computes_the_same(compiled_cpu, capability):
    """A library built on one machine is carried to another; each must take its own road to the same numbers."""
    code = """
import sys, torch
from PADing.modeling.pixel_decoder.ops import __main__ as check, backends
assert backends.load("cpu") is None
print(torch.ops.pading_msda.cpu_instruction_set(), check._largest_error("cpu"))
"""
    name, error = _output(_python(code, ATEN_CPU_CAPABILITY=capability)).split()[-2:]
    supported = torch.backends.cpu.get_cpu_capability()
    if capability != "default" and supported not in ("AVX2", "AVX512"):
        pytest.skip(f"this machine has no {capability}")
    if capability == "avx512" and supported != "AVX512":
        pytest.skip("this machine has no AVX-512")
    assert name == ("baseline" if capability == "default" else capability.upper())
    assert float(error) < 1e-5


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_every_instruction_set_passes_the_kernels_tests(compiled_cpu, capability):
    """This machine's own set is tested by running those tests as usual."""
    supported = torch.backends.cpu.get_cpu_capability()
    if supported.lower() in (capability, "default") or capability == "avx2" and supported not in ("AVX2", "AVX512"):
        pytest.skip(f"this machine's own instruction set is {supported}")
    tests = [str(Path(__file__).with_name(name)) for name in ("test_function.py", "test_module.py")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cpu and not operator", *tests],
        cwd=REPOSITORY,
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    passed = re.search(r"(\d+) passed", result.stdout)
    assert result.returncode == 0 and passed and int(passed[1]) > 50, result.stdout


@pytest.mark.parametrize("command", [["sh", "make.sh"], [sys.executable, "setup.py", "build", "install"]])
def test_building_ahead_of_time(compiled_cpu, tmp_path, command):
    """In a copy whose library is already there, so that this tests the road and not the compiler once more."""
    copy = tmp_path / "ops"
    copy.mkdir()
    for name in ("build.py", "setup.py", "make.sh"):
        (copy / name).write_bytes((OPS / name).read_bytes())
    (copy / "src").symlink_to(OPS / "src")
    (copy / "lib").mkdir()
    built = build.libraries("cpu")[0]
    for path in (built, build._checksum(built)):
        (copy / "lib" / path.name).write_bytes(path.read_bytes())
    result = subprocess.run(
        command, cwd=copy, capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHON": sys.executable}
    )
    assert result.returncode == 0, result.stderr
    assert f"cpu: {copy / 'lib' / build.library_name('cpu')}" in result.stdout
