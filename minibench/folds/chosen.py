"""The hyperparameters of second stages that were chosen on the world `tuning`: ``chosen.yaml``.

A variant without an entry has those of the method that it ablates or extends, but for the keys that it sets itself. So
nothing but the part differs.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from minibench.methods import Method
from PADing.errors import UserError
from PADing.yaml_files import read_yaml

__all__ = ["CHOSEN", "chosen_for"]

CHOSEN = Path(__file__).parent / "chosen.yaml"


def chosen_for(method: Method, file: Path = CHOSEN) -> dict[str, Any]:
    """Config keys and values for a second stage; empty: nothing was chosen.

    Raises:
        UserError: the file is damaged.
    """
    entries = _read(file)
    if method.name in entries:
        return dict(entries[method.name])
    whole = method.ablates or method.extends
    return {key: value for key, value in entries.get(whole, {}).items() if key not in method.overrides}


@cache
def _read(file: Path) -> Mapping[str, Mapping[str, Any]]:
    content = read_yaml(file, "Chosen hyperparameters") or {}
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise UserError(f"{file} must map names of methods to config keys and values, as `minibench tune` writes it.")
    return content
