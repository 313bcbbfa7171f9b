"""Training curves; wrong here means that a resumed run shows losses that were thrown away."""

import json

from PIL import Image

from PADing.visualization.curves import plot_curves, read_metrics


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    """Iterations 20 and 40, then resumed at 20: 40 is written again, and the last line was cut off by a crash."""
    rows = [
        {"iteration": 20, "loss": 3.0, "note": "text"},
        {"iteration": 40, "loss": 2.0, "lr": 0.1},
        {"iteration": 40, "loss": 2.5},
        {"iteration": 60, "loss": 1.0},
        {"other": 1.0},
    ]
    file = tmp_path / "metrics.json"
    file.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"iteration": 80, "lo')
    assert read_metrics(file) == {"loss": ([20, 40, 60], [3.0, 2.5, 1.0]), "lr": ([40], [0.1])}


def test_one_panel_for_each_run(tmp_path):
    """A scalar that a run does not have is left out; the figure grows with the number of runs."""
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 1, "loss": 1.0}\n{"iteration": 2, "loss": 0.5}\n')
    sizes = []
    for number in (1, 2):
        plot_curves({f"run {i}": (file, ["loss", "absent"]) for i in range(number)}, tmp_path / "curves.png")
        sizes.append(Image.open(tmp_path / "curves.png").size)
    assert sizes == [(550, 374), (1100, 374)]
