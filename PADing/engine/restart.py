"""Whether a training that torchrun starts is a new one, or goes on because torchrun has started its processes again.

torchrun starts all processes again when one has failed, and when a machine joins or leaves. ``RECORD`` in the output
folder names the torchruns of the training there. A job with one of them is the same training, which continues from its
last checkpoint. Every other job must say what to do with a training that it finds.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm

from PADing.engine.torchrun import RUN_ID, agent
from PADing.files import write_json

logger = logging.getLogger(__name__)

RECORD = "torchrun.json"


@dataclass
class Record:
    """What ``RECORD`` holds.

    Attributes:
        run_id: of torchrun; for readers only, because it is "none" unless the user chooses it.
        started: when the training was started first.
        processes: how many it had then.
        owns: whether the checkpoints of the folder are this training's, and not yet those of one that it replaces.
        agents: each torchrun of the training (``agent()``), with the digest of its config.
        configs: the configs by digest, each a value by key.
    """

    run_id: str = ""
    started: str = ""
    processes: int = 0
    owns: bool = False
    agents: dict[str, str] = field(default_factory=dict)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)


class Restart:
    """This start of the processes of a job; all processes create it together, and call its methods together.

    Attributes:
        known: whether it is torchrun, and the same job has started a training in the folder before.
        owns: whether the checkpoints in the folder are those of that training.
        processes: how many processes the job had at its first start; 0 if this is the first.
    """

    def __init__(self, cfg: CfgNode):
        self._path = Path(cfg.OUTPUT_DIR, RECORD)
        own = agent()
        self._config = flat_config(cfg)
        self._digest = hashlib.sha256(json.dumps(self._config, sort_keys=True).encode()).hexdigest()[:16]
        everywhere = comm.all_gather((own, self._digest))
        self._agents = {name: digest for name, digest in everywhere if name}
        self.record = read_record(self._path) if self._agents else Record()
        known = [self.record] if self.record.agents.keys() & self._agents.keys() else []
        # Without a shared folder, only some processes have found it.
        found = [record for records in comm.all_gather(known) for record in records]
        self.known = bool(found)
        self.owns = any(record.owns for record in found)
        self.processes = max((record.processes for record in found), default=0)
        if self.known and not known:
            self.record = found[0]
        if not self.known:
            self.record = Record(os.environ.get(RUN_ID, ""), time.strftime("%Y-%m-%dT%H:%M:%S%z"), len(everywhere))
        self._everywhere = everywhere

    def problems(self) -> list[str]:
        """One message if this torchrun has started the training with another config."""
        before = self.record.agents.get(agent(), self._digest)
        if before == self._digest:
            return []
        changes = _changes(self.record.configs.get(before, {}), self._config)
        cure = "Restore it, or end torchrun and start again: with --resume to continue with the new config."
        return [f"The config has changed since torchrun started this training: {changes}. {cure}"]

    def report(self) -> None:
        """Log that the training was started again, and that processes have different configs."""
        if self.known:
            logger.info("torchrun has started this training again: with %d process(es) at first, with %d now.",
                        self.processes, len(self._everywhere))  # fmt: skip
        if len({digest for _, digest in self._everywhere}) > 1:
            first = comm.all_gather(self._config)
            other = next(config for config in first if config != first[0])
            logger.warning("The processes have different configs: %s. Each uses its own.", _changes(first[0], other))

    def write(self, owns: bool) -> None:
        """Write the record; by the main process alone. ``owns``: see ``Record``."""
        if not self._agents:
            self._path.unlink(missing_ok=True)  # this training is not torchrun's
            return
        self.record.owns = owns
        self.record.agents.update(self._agents)
        self.record.configs[self._digest] = self._config
        write_json(self._path, vars(self.record), indent=1)


def started_before(folder: str) -> bool:
    """Whether the torchrun of this process has started the training in ``folder`` before; asked by one process."""
    own = agent()
    record = read_record(Path(folder, RECORD)) if own else Record()
    return record.owns and own in record.agents


def read_record(path: Path) -> Record:
    """The record at ``path``; an empty one if there is none, or none that is whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**content)
    except (OSError, ValueError, TypeError, RecursionError):
        return Record()
    whole = all(type(vars(record)[name]) is type(value) for name, value in vars(Record()).items())
    return record if whole and all(isinstance(config, dict) for config in record.configs.values()) else Record()


def flat_config(cfg: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """All values of a config by full key, as text; without ``OUTPUT_DIR``, which machines may name differently."""
    flat: dict[str, str] = {}
    for key, value in cfg.items():
        if isinstance(value, Mapping):
            flat |= flat_config(value, f"{prefix}{key}.")
        elif prefix or key != "OUTPUT_DIR":
            flat[prefix + key] = repr(value)
    return flat


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    said = [f"{key} was {before.get(key, 'not there')} and is {now.get(key, 'not there')}" for key in keys[:5]]
    return "; ".join(said) + (f"; and {len(keys) - 5} more" if len(keys) > 5 else "")
