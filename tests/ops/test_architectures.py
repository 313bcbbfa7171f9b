"""A CUDA library is loaded on the GPUs that it was built for, however it was built, and on no others."""

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import build


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that this machine has GPUs of the given compute capabilities."""

    def have(*capabilities: tuple[int, int], known=("sm_80", "sm_90", "sm_90a", "sm_100")) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(known))

    monkeypatch.delenv(build.ARCHITECTURES, raising=False)
    return have


def _place(folder, name: str):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.touch()
    return path


def test_a_library_built_by_list_is_found_without_the_list(gpus, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv(build.ARCHITECTURES, "9.0+PTX;8.0")
    path = _place(tmp_path / "lib", build.library_name("cuda"))
    assert path.name.endswith("-sm8.0_sm9.0+PTX.so")
    monkeypatch.delenv(build.ARCHITECTURES)
    for capability in ((8, 0), (8, 6), (9, 0), (12, 0)):
        gpus(capability)
        assert build.libraries("cuda") == [path]
    gpus((7, 5))
    assert build.libraries("cuda") == []
    gpus((8, 0), (7, 5))
    assert build.libraries("cuda") == []


def test_each_kind_of_gpu_has_a_library_in_a_shared_cache(gpus, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    found = []
    for capability in ((8, 0), (9, 0)):
        gpus(capability)
        assert build.libraries("cuda") == []
        found.append(_place(tmp_path / build.CACHE, build.library_name("cuda")))
        assert build.libraries("cuda") == found[-1:]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "tag, runs",
    [
        ("sm8.0", [(8, 0), (8, 6), (8, 9)]),
        ("sm8.6", [(8, 6), (8, 9)]),
        ("sm8.0+PTX", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)]),
        ("sm9.0a", [(9, 0)]),
        ("sm10.0f", [(10, 0), (10, 3)]),
        ("sm7.0_sm12.0", [(7, 0), (7, 5), (12, 0)]),
        ("something", []),
    ],
)
def test_which_gpus_run_which_code(gpus, tag, runs):
    for capability in ((7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0)):
        gpus(capability)
        assert build._fits(tag) == (capability in runs), capability


def test_a_gpu_newer_than_pytorch_gets_code_that_it_can_translate(gpus):
    gpus((8, 0), (12, 1))
    assert build._architectures() == ["8.0", "10.0+PTX"]
    assert build._fits("sm8.0_sm10.0+PTX")


@pytest.mark.parametrize("value", ["Hopper", "8.0;nine", "90"])
def test_a_list_that_cannot_be_understood_is_quoted(gpus, monkeypatch, value):
    monkeypatch.setenv(build.ARCHITECTURES, value)
    with pytest.raises(build.Unavailable, match=f"{build.ARCHITECTURES} has .* such as 8.0"):
        build.library_name("cuda")
