"""From methods and settings to commands: which runs there are, under which hash, and what waits for what."""

import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from minibench.methods import PRETRAINING, REPOSITORY, Method, ordered
from minibench.runs import RECORD, RunFolder, finish_training, read_record, repair_checkpoints, write_record
from minibench.settings import SMOKE_BATCH, Settings, annotation_checksum
from minibench.steps import Step
from PADing.config import load_config
from PADing.errors import UserError

CONVERTED = "pretrained_weight_panoptic.pth"
# Keys that a hash leaves out: paths, what only decides how often something is written, and the seed, which is added.
_NOT_HASHED = (
    "OUTPUT_DIR",
    "MODEL.DEVICE",
    "MODEL.CLASS_EMBEDDINGS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.WRITE_PNG",
    "SEED",
)
# Seconds that a step takes on the machine this was written on: to start, for an iteration, for an image of 128 px.
START, ITERATION, EVALUATED_IMAGE, DRAWN_IMAGE = 12.0, 0.3, 0.2, 0.02


@dataclass(frozen=True)
class Run:
    """One method trained with one seed. ``folder`` is relative to the output folder; ``opts`` override the config."""

    method: Method
    seed: int
    iterations: int
    hash: str
    folder: str
    opts: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.method.name}-seed{self.seed}"


class Plan:
    """All runs of some methods with some seeds.

    A run's hash covers everything that its figures depend on: every config value that differs from the defaults, the
    hashes of the runs whose weights it starts from, the data, and the seed. Keys added later with a default that
    changes nothing therefore leave it as it is. It does not cover the program's text.

    Args:
        methods: all that are known, by name.
        names: those wanted; what they need is added.
        out: the output folder, absolute.

    Raises:
        UserError: an unknown method; a config that cannot be read or is not about the mini data.
    """

    def __init__(self, methods: Mapping[str, Method], names: Iterable[str], settings: Settings, out: Path):
        self.methods, self.settings, self.out = ordered(methods, names), settings, out
        self._opts: dict[str, tuple[str, ...]] = {}
        self._content: dict[str, dict] = {}
        self._plugged: set[str] = set()
        for method in self.methods:
            self._opts[method.name], self._content[method.name] = self._read(method)
        self._runs: dict[tuple[str, int], Run] = {}
        self.runs = [self.run(method, seed) for seed in settings.seeds for method in self.methods]

    def run(self, method: Method, seed: int) -> Run:
        """The run of a method of this plan with any seed."""
        key = (method.name, seed)
        if key not in self._runs:
            by_name = {m.name: m for m in self.methods}
            settings = self.settings
            content = {
                "config": self._content[method.name],
                "from": {name: self.run(by_name[name], seed).hash for name in method.needs},
                "starts_from": method.starts_from,
                "data": settings.data_folder(seed),
                "seed": seed,
            }
            text = json.dumps(content, sort_keys=True, default=str)
            digest = hashlib.sha256(text.encode()).hexdigest()[:10]
            folder = f"runs/{method.name}-seed{seed}-{digest}"
            iterations = settings.iterations(method)
            self._runs[key] = Run(method, seed, iterations, digest, folder, self._opts[method.name])
        return self._runs[key]

    def steps(self) -> list[Step]:
        """The commands, each after those it waits for. Finished ones are among them: ``Step.done``."""
        steps = []
        for seed in self.settings.seeds:
            steps.append(self._data_step(seed))
            runs = [run for run in self.runs if run.seed == seed]
            for run in runs:
                steps.append(self._run_step(run))
                if run.method.name == PRETRAINING and any(r.method.starts_from == "converted" for r in runs):
                    steps.append(self._convert_step(run))
        return steps

    def _read(self, method: Method) -> tuple[tuple[str, ...], dict]:
        """A method's overrides that are the same for all seeds and machines, and what of its config is hashed."""
        settings = self.settings
        where = f"{method.file}: method {method.name}"
        for folder in _python_path(method).values():
            if folder not in sys.path:
                sys.path.append(folder)
        try:
            opts = [str(item) for pair in method.settings.items() for item in pair]
            cfg = load_config(method.config, opts)
            for key in ("TRAIN", "TEST"):
                opts += [f"DATASETS.{key}", str(self._data_sets(cfg.DATASETS[key]))]
            opts += ["SOLVER.MAX_ITER", str(settings.iterations(method)), "TEST.EVAL_PERIOD", "0"]
            if settings.budget == "smoke":
                opts += ["SOLVER.IMS_PER_BATCH", str(SMOKE_BATCH)]
            if settings.size != cfg.INPUT.IMAGE_SIZE:
                opts += ["INPUT.IMAGE_SIZE", str(settings.size), "INPUT.MIN_SIZE_TEST", str(settings.size)]
                opts += ["INPUT.MAX_SIZE_TEST", str(2 * settings.size)]
            cfg = load_config(method.config, opts)
            for key in (method.weights_key, *method.uses):
                if key not in _leaves(cfg):
                    raise UserError(f"{key}, which is to name weights, is no config key.")
            default = _leaves(load_config("", ["PLUGINS", str(tuple(cfg.PLUGINS))]))
            if cfg.PLUGINS:
                self._plugged.add(method.name)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        except Exception as error:  # a plug-in's module is anybody's code, and fails in any way
            raise UserError(f"{where}: {type(error).__name__}: {error}") from error
        hidden = {*_NOT_HASHED, *method.uses}
        if method.starts_from != "nothing":
            hidden.add(method.weights_key)
        content = {
            key: repr(value)
            for key, value in _leaves(cfg).items()
            if key not in hidden and (key not in default or value != default[key])
        }
        return tuple(opts), {**content, "weights": method.weights_key, "uses": dict(method.uses)}

    def _data_sets(self, names: Iterable[str]) -> tuple[str, ...]:
        """Data set names of the compositional split -> those of the settings' split."""
        renamed = []
        for name in names:
            if not name.startswith("mini_"):
                raise UserError(f"Its config uses the data set {name!r}, but the benchmark's are named mini_*.")
            renamed.append(f"{self.settings.split_name}_{name.removeprefix('mini_')}")
        return tuple(renamed)

    # ---- steps

    def _data(self, seed: int) -> Path:
        return self.out / self.settings.data_folder(seed)

    def _data_step(self, seed: int) -> Step:
        s = self.settings
        root = self._data(seed) / s.split_name
        record = self._data(seed) / "minibench.json"
        command = ["datasets/make_mini_coco.py", "--out", root, "--seed", seed, "--split", s.split]
        command += ["--train", s.train, "--val", s.val, "--size", s.size, "--noise", s.noise]

        def finish(seconds: float) -> None:
            write_record(record, {"seconds": round(seconds, 1), "checksum": annotation_checksum(root)})

        return Step(
            name=f"data-seed{seed}",
            command=_python(command),
            log=self.out / "logs" / f"data-seed{seed}.txt",
            done=record.is_file,
            finish=finish,
            usual=2 + DRAWN_IMAGE * (s.train + s.val) * (s.size / 128) ** 2,
            kind="data",
            measured=lambda: read_record(record).get("seconds"),
        )

    def _run_step(self, run: Run) -> Step:
        s, method = self.settings, run.method
        folder = self.out / run.folder
        command = self.command(run)
        record = RunFolder(folder, {"method": method.name, "seed": run.seed, "hash": run.hash, "command": command})

        def prepare() -> None:
            if not (folder / "results.json").is_file():
                repair_checkpoints(folder)
            record.start()

        def finish(seconds: float) -> None:
            if (folder / "results.json").is_file():
                finish_training(folder)
                record.end("done", seconds)
                self.drop_answers(run.seed)

        start = {"nothing": [], "converted": [f"convert-seed{run.seed}"]}
        waits = [f"{name}-seed{run.seed}" for name in method.needs]
        size = (s.size / 128) ** 2
        iteration = ITERATION * (SMOKE_BATCH / 8 if s.budget == "smoke" else 1)
        return Step(
            name=run.name,
            command=_python(command),
            log=self.out / "logs" / f"{Path(run.folder).name}.txt",
            needs=(f"data-seed{run.seed}", *start.get(method.starts_from, []), *waits),
            env={"DETECTRON2_DATASETS": str(self._data(run.seed)), **_python_path(method)},
            done=record.is_done,
            # Evaluated, but stopped before the end was noted.
            complete=(folder / "results.json").is_file,
            prepare=prepare,
            tick=record.tick,
            finish=finish,
            fail=lambda seconds: record.end("failed", seconds),
            usual=START + size * (iteration * run.iterations + EVALUATED_IMAGE * s.val),
            usual_end=START / 4 + size * EVALUATED_IMAGE * s.val,
            kind=f"{method.name} {run.iterations}",
            measured=record.measured,
        )

    def _convert_step(self, run: Run) -> Step:
        """The pretraining's weights with PADing's classifier added."""
        folder = self.out / run.folder
        command = ["tools/preprocess_pretrained_weight.py", "--task_name", "panoptic"]
        command += ["--split", self.settings.split_name]
        command += ["--input_file", folder / "model_final.pth", "--output_file", folder / CONVERTED]
        return Step(
            name=f"convert-seed{run.seed}",
            command=_python(command),
            log=self.out / "logs" / f"convert-{Path(run.folder).name}.txt",
            needs=(run.name,),
            done=(folder / CONVERTED).is_file,
            usual=START / 2,
            kind="convert",
        )

    def command(self, run: Run) -> list[str]:
        """What trains and evaluates a run, after ``python``."""
        method, seed, iterations = run.method, run.seed, run.iterations
        command = ["train_net.py", "--config-file", _relative(method.config), "--num-gpus", "0"]
        command += ["--resume"] if iterations else ["--eval-only"]
        opts = list(run.opts)
        if method.starts_from != "nothing":
            start = self._start(method.starts_from, seed)
            opts += [method.weights_key, str(start)]
        if self._shares_answers(method):
            opts += ["MODEL.MASK_FORMER.SEGMENTER_CACHE", str(self._answers(seed))]
        for key, name in method.uses.items():
            opts += [key, str(self._weights(name, seed))]
        opts += ["SEED", str(seed), "OUTPUT_DIR", str(self.out / run.folder)]
        opts += ["SOLVER.CHECKPOINT_PERIOD", str(max(1, -(-iterations // 4)))]
        opts += ["MODEL.CLASS_EMBEDDINGS", str(self._data(seed) / self.settings.split_name / "class_vectors.npz")]
        # Pictures are shown of one seed.
        opts += ["TEST.WRITE_PNG", str(seed == min(self.settings.seeds))]
        return command + opts

    def _answers(self, seed: int) -> Path:
        """Where the runs on one frozen segmenter share what it answers."""
        return self.out / "cache" / f"seed{seed}"

    def _shares_answers(self, method: Method) -> bool:
        """Answers are found by weights and pixels, so only methods with one and the same segmenter may share them.

        A plug-in's may have the weights of the repository's and compute something else.
        """
        return method.starts_from == "converted" and method.name not in self._plugged

    def drop_answers(self, seed: int) -> None:
        """Free the disk when no run of this plan needs them any more."""
        runs = [run for run in self.runs if run.seed == seed and self._shares_answers(run.method)]
        if all(read_record(self.out / run.folder / RECORD).get("state") == "done" for run in runs):
            shutil.rmtree(self._answers(seed), ignore_errors=True)

    def _start(self, starts_from: str, seed: int) -> Path:
        if starts_from == "converted":
            return self._weights(PRETRAINING, seed).with_name(CONVERTED)
        return self._weights(PRETRAINING if starts_from == "pretrained" else starts_from, seed)

    def _weights(self, name: str, seed: int) -> Path:
        method = next(m for m in self.methods if m.name == name)
        return self.out / self.run(method, seed).folder / "model_final.pth"


def shown(command: list[str]) -> str:
    """A command line to read or to copy."""
    return shlex.join(["python", *command])


def _python(command: list) -> list[str]:
    return [sys.executable, *map(str, command)]


def _python_path(method: Method) -> dict[str, str]:
    """A plug-in's folder is a package: what lies beside it can be imported."""
    if method.file.parent.parent == REPOSITORY:
        return {}
    return {"PYTHONPATH": str(method.file.parent.parent)}


def _relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


def _leaves(node: CfgNode, prefix: str = "") -> dict:
    leaves = {}
    for key, value in node.items():
        if isinstance(value, CfgNode):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves
