"""Odd surroundings: paths of all letters, an ASCII locale, no home, no room for temporary files, a closed output."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.faults import children
from tests.faults.battery import Case, Skip
from tests.faults.commands import REPOSITORY, Plan, Run
from tests.faults.disk import cannot_mount
from tests.faults.targets import D2Z, D2ZERO, DRAW, SMALL, Workplace

# Names of folders that people have.
NAMES = [
    *("two  spaces", "Übergrößen äöü", "漢字とかな", "emoji 🦓", "العربية", "-leading dash", "--overwrite", "it's"),
    *("100%20s %(x)s", "{x} {0}", "[abc]", "star*", "what?", "what?matching_heuristics=True", "a#b", "semi;colon"),
    *("$HOME `id`", "back\\slash", "colon:in it", "key=value", ".hidden", "model.tmp.pth", "long" * 50, "end ", "~"),
    *("http:", "NaN", "(tuple,)", "comma, dot.", "e\u0301 and é", "model_0000001.pth", "!", "@home", "<x>", "|pipe"),
]  # fmt: skip
# Names that may be refused, in one message.
ODD = ["line\nbreak", "tab\there", "not UTF-8 \udcff\udcfe", "bell\a", "x" * 255]
LOCALE = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}


def cases(place: Workplace, seed: int, scale: float = 1) -> Iterator[Case]:
    share = max(1, round(1 / scale)) if scale < 1 else 1
    for number, name in list(enumerate([*NAMES, *ODD]))[::share]:
        yield Case(f"surroundings/paths/{number:02d}", lambda folder, _, n=name: _paths(folder, n), seconds=120)
    everywhere = [(way, target) for target in ("data", "d2zero", "evaluation") for way in OUTPUTS]
    memory = [(size, target) for target in ("d2zero", "evaluation") for size in (2**13, 2**16, 2**22)]
    for kind, functions in (
        ("locale", [_locale_training, _locale_data, _locale_help]),
        ("home", [partial(_home, way=way) for way in ("unset", "absent", "forbidden", "stranger")]),
        ("temporary", [partial(_temporary, way=way) for way in ("full", "absent", "readonly")]),
        ("output", [partial(_output, way=way, target=target) for way, target in everywhere]),
        ("memory", [partial(_shared, size=size, target=target) for size, target in memory]),
    ):
        for number, function in list(enumerate(functions))[::share]:
            yield Case(f"surroundings/{kind}/{number:02d}", lambda folder, _, f=function: f(place, folder), seconds=180)


def _train(root: Path, log: Path, *more: object, **options) -> Run:
    """D2Zero on the data below ``root``."""
    words = ["train_net.py", "--config-file", root / "own.yaml", "OUTPUT_DIR", root / "out", *SMALL, *D2ZERO]
    environ = {"DETECTRON2_DATASETS": str(root), **options.pop("environ", {})}
    vectors = ["MODEL.CLASS_EMBEDDINGS", root / "mini" / "class_vectors.npz"]
    flags = [word for word in more if str(word).startswith("--")]
    keys = [word for word in more if not str(word).startswith("--")]
    return Run([words[0], *flags, *words[1:], *vectors, *keys], log, environ=environ, **options)


def _config(root: Path, config: str = D2Z) -> None:
    import json

    base = json.dumps(str(REPOSITORY / "configs" / "mini" / config))
    (root / "own.yaml").write_text(f"_BASE_: {base}\n", encoding="utf-8")


# ---- paths


def _paths(folder: Path, name: str) -> str:
    """Everything is below a folder of this name: data, config, weights, results."""
    root, odd = folder / name, name in ODD
    try:
        root.mkdir()
    except OSError as error:
        raise Skip(f"there can be no such folder here: {error.strerror}") from error
    run = Run(["datasets/make_mini_coco.py", "--output", root / "mini", *DRAW], folder / "data.txt", cwd=folder)
    if odd and run.end():
        return f"{name!r}: " + run.refuse_ended()[:150]
    elif not odd:
        run.succeed()
    _config(root)
    run = _train(root, folder / "train.txt", cwd=folder)
    if odd and run.end():
        return f"{name!r}: " + run.refuse_ended()[:150]
    elif not odd:
        run.succeed()
    (root / "out" / "results.json").unlink()
    weights = ["MODEL.WEIGHTS", root / "out" / "model_final.pth"]
    run = _train(root, folder / "evaluate.txt", "--eval-only", *weights, cwd=folder)
    if odd and run.end():
        return f"{name!r}: " + run.refuse_ended()[:150]
    elif not odd:
        run.succeed()
    _train(root, folder / "resume.txt", "--resume", "SOLVER.MAX_ITER", 7, cwd=folder).succeed()
    demo = ["demo/demo.py", "--config-file", root / "own.yaml", "--input", root / "mini" / "val", "--output",
            root / "drawn", "--opts", *SMALL, *D2ZERO, "MODEL.CLASS_EMBEDDINGS", root / "mini" / "class_vectors.npz",
            *weights]  # fmt: skip
    Run(demo, folder / "demo.txt", cwd=folder, environ={"DETECTRON2_DATASETS": str(root)}).succeed()
    assert len(list((root / "drawn").iterdir())) == 3
    stray = {path.name for path in folder.iterdir()} - {name, "case.log", "data.txt", "train.txt", "evaluate.txt"}
    stray -= {"resume.txt", "demo.txt"}
    assert not stray, f"files appear elsewhere: {stray}"
    return repr(name)


# ---- locale


def _ascii(place: Workplace, folder: Path) -> Path:
    root = folder / "Größe 漢字"
    root.mkdir()
    place.reference("data")
    shutil.copytree(place.data / "mini", root / "mini")
    _config(root)
    return root


def _locale_training(place: Workplace, folder: Path) -> str:
    root = _ascii(place, folder)
    names = {"DATASETS.TEST": '("mini_val_instance",)'}
    more = [word for pair in names.items() for word in pair]
    _train(root, folder / "train.txt", *more, environ=LOCALE, fresh=True).succeed(150)
    return "training and evaluation"


def _locale_data(place: Workplace, folder: Path) -> str:
    """Class names and files beyond ASCII, in an ASCII terminal."""
    from tests.data.own_data import make_own

    own = make_own(folder / "größe")
    words = ["-m", "PADing.data.verify", "--deep", "--split", own.split_file]
    run = Run(words, folder / "verify.txt", environ=LOCALE, fresh=True)
    assert run.end(150) in (0, 1), run.tail()
    assert "Traceback" not in run.output(), run.tail()
    return "verify"


def _locale_help(place: Workplace, folder: Path) -> str:
    for number, words in enumerate(
        (["pading_cli.py", "--help"], ["train_net.py", "--help"], ["demo/demo.py", "--help"])
    ):
        Run(words, folder / f"{number}.txt", environ=LOCALE, fresh=True).succeed(60)
    return "--help"


# ---- home and temporary files


def _home(place: Workplace, folder: Path, way: str) -> str:
    place.reference("data")
    folder.chmod(0o777)
    away = way in ("forbidden", "stranger")  # the user of a container without an entry in /etc/passwd
    if away and os.geteuid():
        raise Skip("changing the user needs root")
    if away and not children.runs_for(54321):
        raise Skip(f"another user cannot run {sys.executable} on this machine")

    def leave_home() -> None:
        os.environ.pop("HOME", None)
        for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
            os.environ.pop(name, None)
        if way == "absent":
            os.environ["HOME"] = str(folder / "absent" / "home")
        if way == "forbidden":
            home = folder / "home"
            home.mkdir()
            home.chmod(0o555)
            os.environ["HOME"] = str(home)
        if away:
            children.become(54321)

    environ = {"PADING_MSDA_BACKEND": "pytorch"}  # the kernel lies at home, and would be compiled again
    run = place.start("pretraining", folder / "out", before=leave_home, environ=environ, fresh=True)
    run.succeed(150)
    assert "Traceback" not in run.output(), run.tail()
    return way


def _temporary(place: Workplace, folder: Path, way: str) -> str:
    place.reference("data")
    temporary = folder / "tmp"
    if way != "absent":
        if reason := cannot_mount():
            raise Skip(reason)
        children.private_mounts()
        children.small_disk(temporary, 4096)
        if way == "readonly":
            children.set_read_only(temporary, True)
        else:
            (temporary / "full").write_bytes(b"x" * 4096)
    for number, target in enumerate(("d2zero", "evaluation", "data")):
        place.reference(target)
        environ = {"TMPDIR": str(temporary)}
        run = place.start(target, folder / f"out{number}", environ=environ, fresh=number == 0, log=target)
        run.succeed(150)
    return f"TMPDIR {way}"


# ---- where lines go


def _closed() -> None:
    os.close(1)


def _both_closed() -> None:
    os.close(1), os.close(2)


def _full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def _head() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it


OUTPUTS: dict[str, Callable[[], None]] = {"closed": _closed, "both": _both_closed, "full": _full, "head": _head}


def _output(place: Workplace, folder: Path, way: str, target: str) -> str:
    """What a command does must not depend on whether anyone reads what it says."""
    place.reference(target)
    out = folder / "out"
    run = place.start(target, out, before=OUTPUTS[way], fresh=True)
    status = run.end(150)
    assert status in (0, 2, 120), f"standard output {way}: status {status}: {run.tail()}"
    assert "Traceback" not in run.output(), f"standard output {way}: {run.tail()}"
    place.assert_equal(target, out)
    return f"{target}, {way}: status {status}"


# ---- shared memory


def _shared(place: Workplace, folder: Path, size: int, target: str) -> str:
    """Loader workers without room in /dev/shm, as in a container with its default of a few megabytes."""
    place.reference(target)
    if reason := cannot_mount():
        raise Skip(reason)
    children.private_mounts()
    children.small_disk(Path("/dev/shm"), size)

    def fill() -> None:
        Path("/dev/shm/others").write_bytes(bytes(shutil.disk_usage("/dev/shm").free - 49152))

    # There is room at the start, but not for long.
    plan = Plan(place.operations(target).index("os.rename config.yaml") + 1, act=fill) if size > 2**20 else None
    run = place.start(target, folder / "out", "DATALOADER.NUM_WORKERS", 2, plan=plan, watch=folder / "out")
    message = run.refuse("/dev/shm", "shared memory", "NUM_WORKERS")
    place.start(target, folder / "out", again=True, log="again").succeed()
    place.assert_equal(target, folder / "out")
    return message[:200]
