"""The report of the check, as a section for ``docs/benchmarks.md``."""

from collections.abc import Iterable
from typing import Any

COLUMNS = ("images_per_second", "ms", "loading_ms", "inference_ms", "peak_mb", "synchronisations")
SHARES = ("share_of_copies", "share_of_launches", "kernels")


def markdown(report: dict[str, Any]) -> str:
    """The section: the machine, the state of each step, and a table for each that has measured something."""
    machine = report["machine"]
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    parts = [
        f"## {gpus}" if report["device"] == "cuda" else "## CPU only, tiny sizes: a test of the command",
        f"PyTorch {machine['torch']}, CUDA {machine['cuda']}, Python {machine['python']}, {machine['cpus']} CPU cores, "
        f"load {machine['load'][0]:.1f} at the start.",
        _table(
            ["step", "state", "seconds", "remark"],
            ([name, row["status"], row.get("seconds", ""), _remark(row)] for name, row in report["steps"].items()),
        ),
    ]
    for name, row in report["steps"].items():
        if "result" in row and (text := _result(name, row["result"])):
            parts += [f"### {name}", text]
    return "\n\n".join(parts) + "\n"


def _remark(row: dict[str, Any]) -> str:
    result = row.get("result")
    problem = result.get("problem") if isinstance(result, dict) else None
    return " ".join(filter(None, [row.get("reason", ""), problem]))


def _result(name: str, result: Any) -> str:
    if name == "parity" and result["rows"]:
        keys = [key for key in result["rows"][0]]
        return _table(keys, ([row[key] for key in keys] for row in result["rows"]))
    if name == "operator":
        keys = ["case", "dtype", "pass", "backend", "median_ms", "min_ms", "ratio_to_pytorch", "peak_mb", "error"]
        return _table(keys, ([row.get(key) for key in keys] for row in result))
    if isinstance(result, dict) and "variants" in result:
        return _variants(result["variants"])
    return ""


def _variants(variants: dict[str, dict[str, Any]]) -> str:
    failed = [f"- {name} failed: {row['error']}" for name, row in variants.items() if "error" in row]
    rows = {name: row for name, row in variants.items() if "error" not in row}
    keys = [key for key in (*COLUMNS, *SHARES) if any(row.get(key) is not None for row in rows.values())]
    table = _table(
        ["", "first loss", "last loss", *keys],
        ([name, row["losses"][0], row["losses"][-1], *(row.get(key) for key in keys)] for name, row in rows.items()),
    )
    places = [
        f"- {name} waits {number} times at {place}"
        for name, row in rows.items()
        for place, number in row.get("synchronisations_by_place", {}).items()
    ]
    return "\n\n".join(filter(None, [table if rows else "", "\n".join(failed + places)]))


def _table(head: list[str], rows: Iterable[list]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")
