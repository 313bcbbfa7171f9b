"""Mutants of a module: small mistakes that a test should notice, made by the operators of cosmic-ray."""

import ast
import random
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

# They need names to put in.
WITHOUT = ("core/VariableReplacer", "core/VariableInserter")
Place = tuple[int, int]  # line, counted from 1, and column


@dataclass(frozen=True)
class Mutant:
    """A module with one mistake: what ``operator`` makes of the ``occurrence``-th place where it applies."""

    module: str  # path from the root, with slashes
    operator: str
    occurrence: int
    line: int

    def source(self, root: Path) -> str:
        """The code with the mistake."""
        code = (root / self.module).read_text(encoding="utf-8")
        changed = mutate_code(code, get_operator(self.operator)(), self.occurrence)
        assert changed is not None and changed != code, self
        return changed

    def change(self, root: Path) -> tuple[str, str]:
        """The lines that differ: before and after."""
        before, after = (root / self.module).read_text(encoding="utf-8"), self.source(root)
        old, new = before.splitlines(), after.splitlines()
        start = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
        end = next((i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b), 0)
        return tuple("\n".join(lines[start : len(lines) - end]).strip() for lines in (old, new))  # type: ignore[return-value]

    def can_be_made(self, root: Path) -> bool:
        """Whether there is such code.

        The operators take ``**`` and ``*`` of arguments for arithmetic, and fail at ``except module.Error``.
        """
        try:
            compile(self.source(root), self.module, "exec")
        except (SyntaxError, AttributeError):
            return False
        return True


def sample(root: Path, module: str, count: int, seed: int) -> list[Mutant]:
    """At most ``count`` mutants of a module, at places drawn at random; the same for the same seed and code.

    There are fewer if the module has fewer places, or if some that were drawn cannot be made.
    """
    places = _places(root, module)
    draw = random.Random(f"{seed} {module}")
    chosen = draw.sample(sorted(places), min(count, len(places)))
    drawn = [draw.choice(places[place]) for place in sorted(chosen)]
    return [mutant for mutant in drawn if mutant.can_be_made(root)]


def _places(root: Path, module: str) -> dict[Place, list[Mutant]]:
    """All mutants by place, so that a place with many possible mistakes is not drawn more often than others."""
    path = root / module
    skipped, tree = _no_code(path.read_text(encoding="utf-8")), get_ast_from_path(path)
    nodes = list(ast_nodes(tree))
    found: dict[Place, list[Mutant]] = {}
    for name in sorted(operator_names()):
        if name in WITHOUT:
            continue
        operator, occurrence = get_operator(name)(), 0
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                if not any(first <= start < last for first, last in skipped):
                    found.setdefault(start, []).append(Mutant(module, name, occurrence, start[0]))
                occurrence += 1
    return found


def _no_code(code: str) -> list[tuple[Place, Place]]:
    """Where types, log messages and ``strict=`` stand.

    A mistake in ``int | None`` fails at import, which says nothing about tests; logs are not tested word by word; and
    ``zip(..., strict=True)`` is a check of our own mistakes, which never fails.
    """
    nodes: list[ast.AST | None] = []
    for node in ast.walk(ast.parse(code)):
        nodes += [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger."):
            nodes.append(node)
        if isinstance(node, ast.keyword) and node.arg == "strict":
            nodes.append(node.value)
    lines = code.splitlines()
    return [
        ((node.lineno, _column(lines, node.lineno, node.col_offset)),
         (node.end_lineno or 0, _column(lines, node.end_lineno or 0, node.end_col_offset or 0)))
        for node in nodes if isinstance(node, ast.expr)
    ]  # fmt: skip


def _column(lines: list[str], line: int, offset: int) -> int:
    """``ast`` counts bytes, parso characters."""
    return len(lines[line - 1].encode()[:offset].decode(errors="ignore"))
