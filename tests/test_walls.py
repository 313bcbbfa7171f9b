"""Which package may import which. If this fails, a part can no longer be understood, tested or replaced by itself."""

import ast
import graphlib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
METHODS = ("PADing.generation", "d2zero", "frozenclip", "baselines")
TOOLS = ("minibench", "tools", "demo", "datasets", "tests", "train_net", "train_net_pretrain")
OURS = ("PADing", "d2zero", "frozenclip", "baselines", *TOOLS)
NO_MODEL = ("PADing.modeling", "PADing.meta_arch", "PADing.engine")
NO_DATA = ("PADing.data", "PADing.evaluation", "PADing.meta_arch", "PADing.engine", "PADing.config", "PADing.files")
# Folder or file -> modules that nothing in it imports.
FORBIDDEN = {
    "PADing": TOOLS,
    "PADing/modeling": ("detectron2.data", "detectron2.evaluation", "detectron2.engine", *NO_DATA),
    "PADing/generation": ("d2zero", "frozenclip", "baselines"),
    "PADing/generation/losses.py": ("detectron2", "PADing"),
    "PADing/generation/networks.py": ("detectron2", "PADing"),
    "PADing/data": NO_MODEL,
    "PADing/evaluation": NO_MODEL,
    "PADing/visualization": (*NO_MODEL, "PADing.inference"),
    "d2zero": (*TOOLS, "PADing.generation", "frozenclip", "baselines"),
    "frozenclip": (*TOOLS, "PADing.generation", "d2zero", "baselines"),
    "baselines": (*TOOLS, "d2zero", "frozenclip"),
    "d2lite/src": OURS,
    "minibench": ("tools", "demo", "tests"),
}
# A command beside what it measures; it may also write a file.
COMMANDS = {"PADing/modeling/pixel_decoder/ops/benchmark.py": ("PADing.files",)}


def imports(path: Path, when_loaded: bool = False) -> set[str]:
    """Full names of the modules that a file imports, and of what it takes from them.

    ``when_loaded``: only imports that run when the file is imported itself, not those in functions or for types.
    """
    package = path.relative_to(REPOSITORY).parts[:-1]
    found, nodes = set(), [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        later = isinstance(node, ast.FunctionDef) or isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not (when_loaded and later):
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, node.module) if node.module else above)
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def loaded(path: Path, files: dict[str, Path]) -> set[str]:
    """The modules of ``files`` whose content a file needs when it is imported; not the packages above them."""
    found = imports(path, when_loaded=True)
    packages = {name.rpartition(".")[0] for name in found if name in files}
    names = {name.rpartition(".")[0] for name in found if name not in files}
    return {name for name in found & files.keys() if name not in packages - names and files[name] != path}


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_packages_import_only_what_they_may_know(folder):
    place = REPOSITORY / folder
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files, f"{folder} is empty"
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in files
        for module in sorted(imports(path))
        if within(module, FORBIDDEN[folder]) and not within(module, COMMANDS.get(str(path.relative_to(REPOSITORY)), ()))
    ]
    assert not wrong


def modules(*packages: str) -> dict[str, Path]:
    """File of every module of our packages, by full name."""
    found = {}
    for package in packages:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def test_the_host_imports_no_method():
    """Anybody must be able to delete a method's folder; registration names them, in PADing/__init__.py alone."""
    host = {name: path for name, path in modules("PADing").items() if not within(name, METHODS)}
    wrong = [
        f"{name} imports {module}" for name, path in host.items() for module in imports(path) if within(module, METHODS)
    ]
    assert len(host) > 100 and not wrong
    quoting = [name for name, path in host.items() if '"PADing.generation' in path.read_text(encoding="utf-8")]
    assert quoting == ["PADing"]


def test_modules_import_each_other_in_no_cycle():
    """In a cycle, no module can be read, tested or replaced without all the others."""
    files = modules("PADing", "d2zero", "frozenclip", "baselines", "minibench")
    graph = {name: loaded(path, files) for name, path in files.items()}
    assert sum(map(len, graph.values())) > 300
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_code_outside_d2lite_asks_which_detectron2_is_installed():
    """What works with one provider must work with the other; a branch would be run with one of them only."""
    folders = [REPOSITORY / name for name in OURS if name != "tests" and (REPOSITORY / name).is_dir()]
    files = [path for folder in folders for path in folder.rglob("*.py")] + list(REPOSITORY.glob("*.py"))
    wrong = [
        str(path.relative_to(REPOSITORY))
        for path in files
        if "__standin__" in path.read_text(encoding="utf-8")
        or any(within(m, ("d2lite.provider",)) for m in imports(path))
    ]
    assert len(files) > 100 and not wrong


def test_imports_are_found_wherever_they_stand(tmp_path, monkeypatch):
    """The tests above would pass without finding anything, too."""
    monkeypatch.setattr(f"{__name__}.REPOSITORY", tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = tmp_path / "a" / "b" / "c.py"
    path.write_text("import x.y as z\ndef f():\n    from ..d import e\n    from . import g\n    from h import i\n")
    assert imports(path) == {"x.y", "a.d", "a.d.e", "a.b", "a.b.g", "h", "h.i"}
    assert imports(path, when_loaded=True) == {"x.y"}
    assert within("x.y", ("x",)) and not within("xy", ("x",))
