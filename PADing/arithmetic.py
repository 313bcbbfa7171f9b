"""Evaluating the arithmetic that published YAML files contain, such as lists of image sizes, without running code."""

import ast
import operator
from collections.abc import Callable

__all__ = ["evaluate_arithmetic"]

_SIGNS: dict[type, Callable] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_OPERATORS: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable] = {
    **{"int": int, "float": float, "range": range, "list": list, "tuple": tuple},
    "round": lambda value: round(value),  # a number of digits of a million would take all memory
}
_MAX_TEXT = 500
_MAX_ITEMS = 10_000


def evaluate_arithmetic(text: str):
    """The value of numbers, ``+ - * / // %``, lists, tuples, ``int float round range list tuple`` and one-line loops.

    ``[int(x * 0.1 * 640) for x in range(5, 21)]`` is such an expression. ValueError for others, and for more than
    10,000 items.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError(f"an expression of more than {_MAX_TEXT} characters")
    try:
        return _Evaluator().value(ast.parse(text.strip(), mode="eval").body, {})
    except (SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"the expression {text!r} has no value ({error})") from error


class _Evaluator:
    def __init__(self):
        self.items_left = _MAX_ITEMS

    def value(self, node: ast.expr, names: dict):
        match node:
            case ast.Constant(value=int() | float()):
                return node.value
            case ast.Name(id=name) if name in names:
                return names[name]
            case ast.List(elts=parts):
                return [self.value(part, names) for part in parts]
            case ast.Tuple(elts=parts):
                return tuple(self.value(part, names) for part in parts)
            case ast.UnaryOp(op=sign, operand=part) if type(sign) in _SIGNS:
                return _SIGNS[type(sign)](self._number(part, names))
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
                return _OPERATORS[type(sign)](self._number(left, names), self._number(right, names))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                made = _FUNCTIONS[name](*(self.value(argument, names) for argument in arguments))
                if not isinstance(made, int | float):
                    self.items_left -= len(made)  # of all calls together: nested loops multiply them
                    if self.items_left < 0:
                        raise ValueError(f"an expression with more than {_MAX_ITEMS} items")
                return made
            case ast.ListComp(elt=part, generators=[ast.comprehension(target=ast.Name(id=name), iter=source, ifs=[])]):
                return [self.value(part, {**names, name: item}) for item in self.value(source, names)]
        raise ValueError(f"`{ast.unparse(node)}` is not arithmetic")

    def _number(self, node: ast.expr, names: dict) -> int | float:
        value = self.value(node, names)
        if not isinstance(value, int | float):
            raise ValueError(f"`{ast.unparse(node)}` is not a number")
        return value
