"""The scaling benchmark counts what is really sent, and its ratios and estimates are those worked out by hand."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from PADing.commands.benchmark import main
from PADing.engine.recipes import build_recipe
from PADing.engine.trainer import wrap_for_processes
from PADing.model_benchmark.network import GB, Link, all_reduce_seconds, efficiency, job_seconds
from PADing.model_benchmark.network import rows as network_rows
from PADing.model_benchmark.scaling import estimate_table, jobs, table, traffic_table
from PADing.model_benchmark.scaling_worker import gradient_bytes
from PADing.model_benchmark.traffic import GRADIENTS, Traffic
from tests.engine.test_accumulation import batch, config
from tests.engine.test_distributed import in_two_processes

MIB = 2**20


def test_time_of_a_ring_by_hand():
    """Eight members send 14 / 8 of 800 MB at 80 % of 100 GB/s: 17.5 ms; 14 steps of 1 ms in each of two calls."""
    link = Link("", 100 * GB, 1e-3)
    assert all_reduce_seconds(800e6, 8, link) == pytest.approx(0.0175 + 0.014)
    assert all_reduce_seconds(800e6, 8, link, calls=2) == pytest.approx(0.0175 + 0.028)
    assert all_reduce_seconds(800e6, 1, link) == 0


def test_time_of_several_machines_by_hand():
    """Inside 17.5 ms as above; between four machines 6 / 4 of 800 MB at 80 % of 10 GB/s: 150 ms."""
    inside, between = Link("", 100 * GB, 0.0), Link("", 10 * GB, 0.0)
    assert job_seconds(800e6, 8, 4, inside, between) == pytest.approx(0.0175 + 0.15)
    assert job_seconds(800e6, 8, 1, inside, between) == pytest.approx(0.0175)


def test_efficiency_by_hand():
    assert efficiency(0.3, 0.1) == pytest.approx(0.75)
    assert efficiency(0.3, 0.1, hidden=0.1) == 1 and efficiency(0.3, 0.1, hidden=9.0) == 1
    slow = [float(row[3].split()[0]) for row in network_rows(2e8, 0.3, 8)]
    assert len(slow) == 2 + 2 * 3 and slow[0] == max(slow) and all(0 < share < 100 for share in slow)
    assert "200.0 MiB all-reduced in 8 parts, a step of 0.300 s" in estimate_table(200 * MIB, 0.3, 8)


def test_each_number_of_processes_has_equal_and_shared_images():
    assert jobs(["a"], [1, 2], 3) == [("a", 1, 3), ("a", 2, 3), ("a", 1, 6)]
    assert jobs(["a"], [1, 2, 3], 1) == [("a", 1, 1), ("a", 2, 1), ("a", 3, 1), ("a", 1, 3)]
    assert jobs(["a", "b"], [2], 1) == [("a", 2, 1), ("b", 2, 1)]


def row(processes, images, seconds, turn=1, **more):
    values = {"contender": "a", "processes": processes, "images": images, "round": turn, "seconds": seconds}
    values |= {"cpu_seconds": [1.0], "silent_seconds": [], "peak": 100 * MIB, "state_bytes": MIB, "traffic": {}}
    return {**values, **more}


def test_speedups_by_hand():
    """Two images in 1.25 s, one in 1 s: 1.6 times as many. Two images by one process take 2.2 s: 1.76."""
    sent = {GRADIENTS: {"bytes": 10 * MIB, "calls": 3, "seconds": 0.125}}
    found = [row(1, 1, [1.0]), row(1, 2, [2.2]), row(2, 1, [1.25], silent_seconds=[1.2], traffic=sent)]
    found += [row(1, 1, [1.0], 2), row(2, 1, [1.0], 2, silent_seconds=[1.0], traffic=sent)]
    lines = table(found).splitlines()
    assert "| a | 1 | 1 | 1.000 | - | 1.000 | - | - | 100 | 1 | - |" in lines
    assert "| a | 2 | 1 | 1.125 | 1.100 | 1.000 | 1.80 (1.60 to 2.00) | 1.76 (1.76 to 1.76) | 100 | 1 | - |" in lines
    assert "| a | 2 | gradients | 3 | 10.000 | 125.0 | 11.2 % |" in traffic_table(found).splitlines()
    failed = {"contender": "a", "processes": 4, "images": 1, "round": 1, "error": "no memory"}
    assert "| a | 4 | 1 | failed: no memory" in table([*found, failed])
    assert traffic_table([failed]).count("\n") == 1


def stepped(case, folder, counted):
    cfg = config(case, folder, "SOLVER.OPTIMIZER", "ADAMW")
    torch.manual_seed(1)
    model = build_model(cfg).train()
    recipe = build_recipe(cfg, model)
    wrapped, traffic = wrap_for_processes(model, recipe.find_unused_parameters), Traffic()
    if counted:
        traffic.watch_gradients(wrapped, recipe)
    torch.manual_seed(2 + comm.get_rank())
    with EventStorage(0), traffic.watched():
        for i in range(2):
            traffic.clear()
            recipe.step(wrapped, batch(case, [1, 3], seed=10 * i + comm.get_rank()), 0.0)
    return model, recipe, traffic


def check_counts(folder):
    for case in ("MaskFormer", "D2Zero", "PADing"):
        plain, _, _ = stepped(case, folder, counted=False)
        model, recipe, traffic = stepped(case, folder, counted=True)
        assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), model.parameters(), strict=True)), case
        expected = gradient_bytes(model, recipe)
        assert traffic.bytes[GRADIENTS] == expected > 10**4, (case, traffic.bytes, expected)
        assert traffic.seconds[GRADIENTS] > 0
        # Losses and the time of loading: 2 for each update; the number of masks once, not in PADing's second stage.
        updates = len(recipe.optimizers)
        assert traffic.calls["all_reduce"] in (2 * updates, 2 * updates + 1), traffic.calls
        assert traffic.bytes["all_reduce"] < 400
    Path(folder, f"done{comm.get_rank()}").touch()


def test_what_is_counted_is_what_the_gradients_take(tmp_path):
    """The estimate for a full model takes the size of its gradients for what is sent."""
    in_two_processes(check_counts, tmp_path)
    assert len(list(tmp_path.glob("done*"))) == 2


def test_mistakes_are_named(tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text("{}")
    assert main(["scaling", "--output", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["scaling", "--device", "cuda", "--processes", "4"]) == 2
        assert "--processes 4 needs as many GPUs, but this machine has 0" in capsys.readouterr().err
    for value in ("0", "-1", "inf", "soon"):
        with pytest.raises(SystemExit):
            main(["scaling", "--step-seconds", value])
        assert "is no number of seconds above 0" in capsys.readouterr().err
    assert main(["scaling", "--estimate", "--config-file", str(tmp_path / "none.yaml")]) == 2


def test_estimate_for_the_full_model_needs_no_measurement(capsys):
    """By hand: R-50's Mask2Former has 44 million trained parameters of 4 bytes."""
    assert main(["scaling", "--estimate", "--step-seconds", "0.4"]) == 0
    out = capsys.readouterr().out
    assert "| 4 x 8 | NVLink 4 (H100, NVSwitch); 100 Gb/s |" in out
    size = float(out.partition("measured: ")[2].partition(" MiB")[0])
    assert 43.5e6 < size * MIB / 4 < 44.5e6


@pytest.mark.slow
def test_jobs_are_measured_in_fresh_processes(tmp_path, capsys):
    """Also a job that fails: it is in the table, and the others are measured."""
    output = tmp_path / "result.json"
    words = ["scaling", "--config-file", "configs/mini/panoptic-pretrain.yaml", "--side", "64", "--rounds", "1"]
    words += ["--repeats", "1", "--contender", "as-trained", "--contender", "shared-optimizer"]
    assert main([*words, "--output", str(output)]) == 0
    found = json.loads(output.read_text())["rows"]
    expected = [(c, p, i) for p, i in ((1, 1), (2, 1), (1, 2)) for c in ("as-trained", "shared-optimizer")]
    assert [(r["contender"], r["processes"], r["images"]) for r in found] == expected
    assert not any("error" in r for r in found)
    whole, half = found[2]["state_bytes"], found[3]["state_bytes"]
    assert 0.4 < half / whole < 0.6
    assert found[3]["traffic"]["broadcast"]["bytes"] == found[2]["traffic"][GRADIENTS]["bytes"]
    capsys.readouterr()
    assert main([*words, "MODEL.SWIN.DEPTHS", "[2]", "MODEL.BACKBONE.NAME", "D2SwinTransformer"]) == 2
    captured = capsys.readouterr()
    assert "failed: " in captured.out and "Nothing was measured" in captured.err
