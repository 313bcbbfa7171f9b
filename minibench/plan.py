"""Makes runs with hashes, and steps with their order, from methods and settings."""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from minibench.methods import Method, ordered
from minibench.runs import RECORD, Run, finish_training, read_record
from minibench.settings import SMOKE_BATCH, SMOKE_ITERATIONS, Settings, annotation_checksum
from minibench.steps import Step, training_progress
from minibench.toy_clip import command as toy_clip
from PADing.config import load_config
from PADing.config_values import leaves
from PADing.errors import UserError
from PADing.files import REPOSITORY, write_json

CONVERTED = "pretrained_weight_panoptic.pth"
# Keys that are not hashed: paths, keys that only say how often files are written, and the seed (hashed separately).
_NOT_HASHED = (
    "OUTPUT_DIR",
    "MODEL.DEVICE",
    "MODEL.CLASS_EMBEDDINGS",
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.WRITE_PNG",
    "SEED",
)
# Seconds on two CPU cores: start of a step, an iteration, an evaluated and a drawn image of 128 px.
START, ITERATION, EVALUATED_IMAGE, DRAWN_IMAGE = 12.0, 0.3, 0.2, 0.02
TOY_CLIP_ITERATION = 0.5


class Plan:
    """All runs of some methods with some seeds, and the steps that lead to them.

    A run's hash covers all config values that differ from the defaults, the hashes of the runs whose weights it starts
    from, the data, and the seed. A new config key does not change it if its default changes nothing. The hash does not
    cover the program's code.

    Args:
        methods: all known methods by name. names: the wanted ones; the methods that they need are added. out: absolute.

    Raises:
        UserError: an unknown method; a config that cannot be read or uses other data.
    """

    def __init__(self, methods: Mapping[str, Method], names: Iterable[str], settings: Settings, out: Path):
        self.methods = {method.name: method for method in ordered(methods, names)}
        self._full = {name: methods.get(method.ablates or method.extends) for name, method in self.methods.items()}
        self.settings, self.out = settings, out
        self._plugged: set[str] = set()
        # Values of the hyperparameters that a method tried on the tuning split, or those that its full method tried.
        self.hyperparameters: dict[str, dict[str, Any]] = {}
        self._configs = {name: self._read(method) for name, method in self.methods.items()}
        self._runs: dict[tuple[str, int], Run] = {}
        self.runs = [self.run(name, seed) for seed in settings.seeds for name in self.methods]

    def run(self, name: str, seed: int) -> Run:
        """The run of one of the plan's methods, with any seed."""
        if (name, seed) not in self._runs:
            method, (opts, config) = self.methods[name], self._configs[name]
            content = {
                "config": config,
                "from": {needed: self.run(needed, seed).hash for needed in method.needs},
                "starts_from": method.starts_from,
                "data": self.settings.data_folder(seed),
                "seed": seed,
            }
            if method.toy_clip:
                content["toy_clip"] = [dict(method.toy_clip), self._toy_clip_arguments(seed)]
            text = json.dumps(content, sort_keys=True, default=str)
            digest = hashlib.sha256(text.encode()).hexdigest()[:10]
            folder = self.out / "runs" / f"{name}-seed{seed}-{digest}"
            self._runs[name, seed] = Run(method, seed, folder, digest, opts)
        return self._runs[name, seed]

    def steps(self, after_run: Callable[[], object] = lambda: None) -> list[Step]:
        """The commands, also finished ones, each after those that it needs; ``after_run`` is called after each run."""
        steps = []
        for seed in self.settings.seeds:
            steps.append(self._data_step(seed))
            runs = [run for run in self.runs if run.seed == seed]
            if any(run.method.toy_clip for run in runs):
                steps.append(self._toy_clip_step(seed))
            for run in runs:
                steps.append(self._run_step(run, after_run))
                if any(r.method.starts_from == "converted" and r.method.source == run.method.name for r in runs):
                    steps.append(self._convert_step(run))
        return steps

    def _read(self, method: Method) -> tuple[tuple[str, ...], dict]:
        """A method's overrides that are the same for all seeds and machines, and the hashed part of its config."""
        if not method.toy_clip:
            return self._read_with(method, [])
        with tempfile.TemporaryDirectory() as folder:  # no seed's toy CLIP is there yet
            toy_clip.write_stand_in(Path(folder))
            return self._read_with(method, _of_toy_clip(method, Path(folder)))

    def _read_with(self, method: Method, further: list[str]) -> tuple[tuple[str, ...], dict]:
        settings = self.settings
        if method.import_from and str(method.import_from) not in sys.path:
            sys.path.append(str(method.import_from))
        try:
            opts = [str(item) for pair in method.overrides.items() for item in pair]
            cfg = load_config(method.config, [*opts, *further])
            for key in ("TRAIN", "TEST"):
                opts += [f"DATASETS.{key}", str(self._data_sets(cfg.DATASETS[key]))]
            opts += ["SOLVER.MAX_ITER", str(settings.iterations(method)), "TEST.EVAL_PERIOD", "0"]
            if settings.budget == "smoke":
                opts += ["SOLVER.IMS_PER_BATCH", str(SMOKE_BATCH)]
            if settings.size != cfg.INPUT.IMAGE_SIZE:
                opts += ["INPUT.IMAGE_SIZE", str(settings.size), "INPUT.MIN_SIZE_TEST", str(settings.size)]
                opts += ["INPUT.MAX_SIZE_TEST", str(2 * settings.size)]
            cfg = load_config(method.config, [*opts, *further])
            values = dict(leaves(cfg))
            for key in (method.weights_key, *method.uses, *method.toy_clip):
                if key not in values:
                    raise UserError(f"{key} should name weights, but it is not a config key.")
            full = self._full[method.name]
            tried = method.search.keys or (full.search.keys if full else ())
            self.hyperparameters[method.name] = {key: values[key] for key in tried if key in values}
            default = dict(leaves(load_config("", ["PLUGINS", str(tuple(cfg.PLUGINS))])))
            if cfg.PLUGINS:
                self._plugged.add(method.name)
        except Exception as error:  # a plug-in's module can fail in any way
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            raise UserError(f"{method.file}: method {method.name}: {kind}{error}") from error
        for key in (*_NOT_HASHED, *method.uses, *method.toy_clip, *([method.weights_key] if method.source else [])):
            values.pop(key, None)
        content = {key: repr(value) for key, value in values.items() if key not in default or value != default[key]}
        return tuple(opts), {**content, "weights": method.weights_key, "uses": dict(method.uses)}

    def _data_sets(self, names: Iterable[str]) -> tuple[str, ...]:
        """Data set names of the compositional split -> names of the settings' split."""
        if foreign := [name for name in names if not name.startswith("mini_")]:
            raise UserError(
                f"Its config uses the data set {foreign[0]!r}, but the benchmark's data sets are named mini_*."
            )
        return tuple(f"{self.settings.split_name}_{name.removeprefix('mini_')}" for name in names)

    def _data(self, seed: int) -> Path:
        return self.out / self.settings.data_folder(seed)

    def _step(self, name: str, command: list, log: str, done: Callable[[], bool], **more: Any) -> Step:
        return Step(name, [sys.executable, *map(str, command)], self.out / "logs" / f"{log}.txt", done, **more)

    def _data_step(self, seed: int) -> Step:
        s = self.settings
        root, record = self._data(seed) / s.split_name, self._data(seed) / RECORD
        command = ["datasets/make_mini_coco.py", "--out", root, "--seed", seed, "--split", s.split]
        command += ["--train", s.train, "--val", s.val, "--size", s.size, "--noise", s.noise]

        def note(state: str, seconds: float) -> None:
            if state == "done":
                write_json(record, {"seconds": round(seconds, 1), "checksum": annotation_checksum(root)}, indent=1)

        step = self._step(f"data-seed{seed}", command, f"data-seed{seed}", record.is_file, kind="data", note=note)
        step.usual = 2 + DRAWN_IMAGE * (s.train + s.val) * (s.size / 128) ** 2
        step.measured = lambda: read_record(record).get("seconds")
        return step

    def _toy_clip(self, seed: int) -> Path:
        return self._data(seed) / "toy_clip"

    def _toy_clip_arguments(self, seed: int) -> list[str]:
        short = (
            ["--iterations", str(SMOKE_ITERATIONS), "--scenes", "8", "--checked-scenes", "8"]
            if self.settings.budget == "smoke"
            else []
        )
        return ["--split", self.settings.split, "--seed", str(seed), *short]

    def _toy_clip_step(self, seed: int) -> Step:
        """The step that trains the seed's toy CLIP and makes its class embeddings."""
        report = self._toy_clip(seed) / toy_clip.REPORT
        command = ["-m", "minibench", "toy-clip", "--output", self._toy_clip(seed), *self._toy_clip_arguments(seed)]
        name, more = f"toy_clip-seed{seed}", {"needs": (f"data-seed{seed}",), "kind": "toy_clip"}
        step = self._step(name, command, name, report.is_file, **more)
        step.usual = START + TOY_CLIP_ITERATION * toy_clip.ITERATIONS
        step.measured = lambda: read_record(report).get("seconds")
        return step

    def _run_step(self, run: Run, after_run: Callable[[], object]) -> Step:
        s, method = self.settings, run.method
        command, iterations = self.command(run), s.iterations(method)
        seconds_before = run.record().get("seconds", 0.0)

        def note(state: str, seconds: float) -> None:
            if state == "done" and not run.evaluated:
                return
            if state == "done":
                finish_training(run.folder)
            run.note(state, seconds_before + seconds, command)
            if state == "done":
                self.drop_answers(run.seed)
                after_run()

        needs = [f"data-seed{run.seed}", *(f"{name}-seed{run.seed}" for name in method.needs)]
        needs += [f"convert-seed{run.seed}"] if method.starts_from == "converted" else []
        needs += [f"toy_clip-seed{run.seed}"] if method.toy_clip else []
        size = (s.size / 128) ** 2
        iteration = ITERATION * (SMOKE_BATCH / 8 if s.budget == "smoke" else 1)
        path = {"PYTHONPATH": str(method.import_from)} if method.import_from else {}
        return self._step(
            run.name,
            command,
            run.folder.name,
            done=lambda: run.done,
            needs=tuple(needs),
            env={"DETECTRON2_DATASETS": str(self._data(run.seed)), **path},
            note=note,
            progress=lambda: training_progress(run.folder, iterations),
            usual=START + size * (iteration * iterations + EVALUATED_IMAGE * s.val),
            usual_end=START / 4 + size * EVALUATED_IMAGE * s.val,
            kind=f"{method.name} {iterations}",
            measured=lambda: run.record()["seconds"] if run.done else None,
        )

    def _convert_step(self, run: Run) -> Step:
        """The step that adds PADing's classifier to the pretraining's weights."""
        converted = run.weights.with_name(CONVERTED)
        command = ["tools/preprocess_pretrained_weight.py", "--task_name", "panoptic"]
        command += ["--split", self.settings.split_name]
        command += ["--input_file", str(run.weights), "--output_file", str(converted)]
        more = {"needs": (run.name,), "usual": START / 2, "kind": "convert"}
        return self._step(f"convert-seed{run.seed}", command, f"convert-{run.folder.name}", converted.is_file, **more)

    def command(self, run: Run) -> list[str]:
        """The command that trains and evaluates a run, without ``python``."""
        method, seed, iterations = run.method, run.seed, self.settings.iterations(run.method)
        config = method.config
        config = config.relative_to(REPOSITORY) if config.is_relative_to(REPOSITORY) else config
        command = ["train_net.py", "--config-file", str(config), "--num-gpus", "0"]
        command += ["--resume"] if iterations else ["--eval-only"]
        opts = list(run.opts)
        if method.source:
            weights = self.run(method.source, seed).weights
            weights = weights.with_name(CONVERTED) if method.starts_from == "converted" else weights
            opts += [method.weights_key, str(weights)]
        if self._shares_answers(method):
            opts += ["MODEL.MASK_FORMER.SEGMENTER_CACHE", str(self._answers(seed))]
        for key, name in method.uses.items():
            opts += [key, str(self.run(name, seed).weights)]
        opts += ["SEED", str(seed), "OUTPUT_DIR", str(run.folder)]
        opts += ["SOLVER.CHECKPOINT_PERIOD", str(max(1, -(-iterations // 4)))]
        opts += ["MODEL.CLASS_EMBEDDINGS", str(self._data(seed) / self.settings.split_name / "class_vectors.npz")]
        opts += _of_toy_clip(method, self._toy_clip(seed))
        # The report shows images of one seed.
        opts += ["TEST.WRITE_PNG", str(seed == min(self.settings.seeds))]
        return command + opts

    def _answers(self, seed: int) -> Path:
        """The folder where runs with the same frozen segmenter share its outputs."""
        return self.out / "cache" / f"seed{seed}"

    def _shares_answers(self, method: Method) -> bool:
        """Whether outputs are shared. A plug-in may compute other outputs with the same weights, so it shares none."""
        return method.starts_from == "converted" and method.name not in self._plugged

    def drop_answers(self, seed: int) -> None:
        """Delete the shared outputs when no run of this plan needs them any more."""
        if all(run.done for run in self.runs if run.seed == seed and self._shares_answers(run.method)):
            shutil.rmtree(self._answers(seed), ignore_errors=True)


def _of_toy_clip(method: Method, folder: Path) -> list[str]:
    """The overrides that name files of a toy CLIP."""
    return [word for key, name in method.toy_clip.items() for word in (key, str(folder / name))]
