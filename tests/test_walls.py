"""Which package may import which. If this fails, a part can no longer be understood, tested or replaced by itself."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
OURS = ("PADing", "d2zero", "minibench", "tools", "demo", "datasets", "tests", "train_net", "train_net_pretrain")
METHODS_AND_TOOLS = OURS[1:]
NO_MODEL = ("PADing.modeling", "PADing.generation", "PADing.meta_arch", "PADing.engine", *METHODS_AND_TOOLS)
NO_DATA = ("PADing.data", "PADing.evaluation", "PADing.meta_arch", "PADing.engine", "PADing.config", "PADing.files")
# Folder -> modules that nothing in it imports.
FORBIDDEN = {
    "PADing": METHODS_AND_TOOLS,
    "PADing/modeling": ("detectron2.data", "detectron2.evaluation", "detectron2.engine", "PADing.generation", *NO_DATA),
    "PADing/generation": ("detectron2", *NO_DATA),
    "PADing/data": NO_MODEL,
    "PADing/evaluation": NO_MODEL,
    "PADing/visualization": (*NO_MODEL, "PADing.inference"),
    "d2zero": ("minibench", "tools", "demo", "tests"),
    "d2lite/src": OURS,
    "minibench": ("tools", "demo", "tests"),
}
# A command beside what it measures; it may also write a file.
COMMANDS = {"PADing/modeling/pixel_decoder/ops/benchmark.py": ("PADing.files",)}


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, also inside functions, and of what it takes from them."""
    package = path.relative_to(REPOSITORY).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, node.module) if node.module else above)
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_packages_import_only_what_they_may_know(folder):
    files = sorted((REPOSITORY / folder).rglob("*.py"))
    assert files, f"{folder} is empty"
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in files
        for module in sorted(imports(path))
        if within(module, FORBIDDEN[folder]) and not within(module, COMMANDS.get(str(path.relative_to(REPOSITORY)), ()))
    ]
    assert not wrong


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
    assert within("x.y", ("x",)) and not within("xy", ("x",))
