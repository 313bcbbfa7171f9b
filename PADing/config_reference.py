"""Explains config keys.

``python -m PADing.config_reference --key SOLVER.BASE_LR`` explains one key or all keys of a section,
``--write`` makes docs/configuration*.md again. Without flags, all keys are listed with their defaults.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import PADing
from PADing.command_line import CommandParser, run_command
from PADing.config import load_config
from PADing.config_check import value_at
from PADing.config_rules import RULES, Rule
from PADing.config_values import leaves
from PADing.errors import UserError, did_you_mean, refuse
from PADing.files import REPOSITORY
from PADing.plugins import imported_methods
from PADing.yaml_files import read_yaml

# Beside a module that adds config keys; the second one for the keys of Detectron2, which is another package.
FILE, DETECTRON2_FILE = "config_keys.yaml", "config_keys_detectron2.yaml"
METHODS = ("d2zero", "frozenclip")  # plug-ins of this repository with keys of their own
PAGES = {
    "model": ("Model", ("MODEL",)),
    "data": ("Data and images", ("DATASETS", "INPUT", "DATALOADER")),
    "training": ("Training", ("SOLVER",)),
    "evaluation": ("Evaluation and general keys", ("TEST", "")),
}
# In words, for keys without a rule.
KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", tuple: "a list", list: "a list"}
NO_EFFECT = "no_effect"
GENERATED = "<!-- Written by `python -m PADing.config_reference --write`. Edit config_keys.yaml instead. -->"
INDEX = """# Configuration

Every config key with its default, allowed values, meaning and origin.

A config is a YAML file. It names a base file under `_BASE_` and sets the keys that differ. You can also set any key at
the end of a command line:

```sh
python train_net.py --config-file configs/mini/d2zero.yaml --num-gpus 0 SOLVER.MAX_ITER 200 SEED 1
```

Explain one key, or all keys of a section:

```sh
python -m PADing.config_reference --key MODEL.MASK_FORMER.NOISE
python -m PADing.config_reference --key SOLVER.CLIP_GRADIENTS
```

Unknown keys and wrong values are reported together before anything starts. The defaults are those of the code; most
configs set other values. A training writes its full config to `config.yaml` in its output folder.
"""
ORIGINS = """
The origin says where a key comes from:

| origin | |
|---|---|
| Detectron2 | Detectron2 itself, with its DeepLab project |
| Mask2Former | the published code of Mask2Former |
| PADing, D2Zero | the published code of the method |
| this framework | new here, or a constant in the published code |

PADing's keys are always there. Those of D2Zero and FrozenCLIP need `PLUGINS: ("d2zero",)` or `("frozenclip",)`, which
their configs set. Your own plug-in describes its keys in a `config_keys.yaml` beside its `__init__.py`; `--plugins
my_method` shows them.

## Pages
"""
NO_EFFECT_TEXT = """# Keys without effect

Published YAML files set some of these keys, so they are accepted. No model or command of this project reads them.

| key | default | reason | origin |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Key:
    """One config key; ``values`` says what is allowed, ``reason`` why it has no effect ("" if it has)."""

    name: str
    default: object
    meaning: str
    values: str
    origin: str
    reason: str = ""

    @property
    def section(self) -> str:
        """Such as ``SOLVER.AMP``; "" at the top."""
        return self.name.rpartition(".")[0]


def all_keys(plugins: Iterable[str] = METHODS) -> list[Key]:
    """Every key, in the order of the config; UserError for a key without a meaning, or the other way round."""
    plugins = tuple(plugins)
    cfg = load_config("", ["PLUGINS", plugins])
    modules = [PADing, *imported_methods(plugins)]
    about = _read_meanings(modules)
    own = (rule for module in modules for rule in getattr(module, "CONFIG_RULES", ()))
    rules = {key: rule for rule in (*RULES, *own) if isinstance(rule, Rule) for key in rule.full_keys()}
    names = sorted((name for name, _ in leaves(cfg)), key=_place)
    found, used = [], set()
    for name in names:
        pattern = name if name in about else next((p for p in about if fnmatchcase(name, p)), None)
        if pattern is not None:
            used.add(pattern)
            default = () if name == "PLUGINS" else value_at(cfg, name)
            found.append(_key(name, default, *about[pattern], rules.get(name)))
    unexplained = set(names) - {key.name for key in found}
    refuse(
        [f"Config key {name} has no meaning in a {FILE}." for name in sorted(unexplained)]
        + [f"A {FILE} explains {name}, which is not a config key." for name in sorted(about.keys() - used)]
    )
    return found


def _place(name: str) -> tuple:
    """Sections by name, each before its subsections; inside a section ``sorted`` keeps the order."""
    return tuple(name.split(".")[:-1])


def _read_meanings(modules: Iterable[ModuleType]) -> dict[str, tuple[str, str | dict]]:
    """Key or pattern -> (origin, entry), of the files beside the modules."""
    found: dict[str, tuple[str, str | dict]] = {}
    for module in modules:
        for name in (FILE, DETECTRON2_FILE):
            path = Path(module.__file__ or "").with_name(name)
            for origin, entries in read_yaml(path, "File of config keys").items() if path.is_file() else ():
                found |= {key: (origin, entry) for key, entry in entries.items()}
    return found


def _key(name: str, default: object, origin: str, entry: str | dict, rule: Rule | None) -> Key:
    entry = {"meaning": entry} if isinstance(entry, str) else entry
    values = entry.get("values") or _words(default, rule)
    return Key(name, default, entry.get("meaning", "").strip(), values.strip(), origin, entry.get(NO_EFFECT, ""))


def _words(default: object, rule: Rule | None) -> str:
    if rule is not None:
        whole = rule.allowed.words.startswith("a number") and isinstance(default, int)
        return rule.allowed.words.replace("a number", "a whole number") if whole else rule.allowed.words
    return KINDS.get(type(default), "any")


# ---- the pages


def pages(keys: list[Key]) -> dict[str, str]:
    """Path below docs/ -> Markdown, of the index and of a page for each part of the config."""
    links = [f"- [{title}](configuration/{name}.md): {_sections(tops, keys)}" for name, (title, tops) in PAGES.items()]
    links.append(f"- [Keys without effect](configuration/{NO_EFFECT}.md): parts of Detectron2 that no model here has")
    made = {"configuration.md": "\n".join([GENERATED, INDEX + ORIGINS, *links, *_toctree(), ""])}
    for name, (title, tops) in PAGES.items():
        body = "\n".join(_tables([key for key in keys if key.section.split(".")[0] in tops]))
        made[f"configuration/{name}.md"] = f"{GENERATED}\n# {title}: config keys\n{body}"
    rows = (f"| `{key.name}` | {_code(key.default)} | {key.reason} | {key.origin} |" for key in keys if key.reason)
    made[f"configuration/{NO_EFFECT}.md"] = f"{GENERATED}\n{NO_EFFECT_TEXT}" + "\n".join(rows) + "\n"
    return made


def _sections(tops: Iterable[str], keys: list[Key]) -> str:
    found = dict.fromkeys(key.section for key in keys if not key.reason and key.section.split(".")[0] in tops)
    return ", ".join(f"`{section}`" if section else "keys without a section" for section in found)


def _toctree() -> list[str]:
    return ["", "```{toctree}", ":hidden:", *(f"configuration/{name}" for name in (*PAGES, NO_EFFECT)), "```"]


def _tables(keys: list[Key]) -> Iterator[str]:
    keys = [key for key in keys if not key.reason]
    for section in dict.fromkeys(key.section for key in keys):
        yield f"\n## {section or 'Keys without a section'}\n"
        yield "| key | default | values | meaning | origin |"
        yield "|---|---|---|---|---|"
        for key in keys:
            if key.section == section:
                cells = f"`{key.name.rpartition('.')[2]}`", _code(key.default), key.values, key.meaning, key.origin
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _code(value: object) -> str:
    return f"`{value!r}`".replace("'", '"')


# ---- the command


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = CommandParser(__doc__, prog="python -m PADing.config_reference")
    parser.add_argument("--key", metavar="KEY", help="explain a key, or all keys of a section")
    parser.add_argument("--plugins", nargs="+", metavar="MODULE", default=(), help="also the keys of these plug-ins")
    parser.add_argument("--write", action="store_true", help="write docs/configuration*.md")
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    keys = all_keys((*METHODS, *args.plugins))
    if args.write:
        for path, text in pages(keys).items():
            (REPOSITORY / "docs" / path).parent.mkdir(exist_ok=True)
            (REPOSITORY / "docs" / path).write_text(text, encoding="utf-8")
    elif args.key:
        print("\n\n".join(_explain(key) for key in _matching(args.key.strip("."), keys)))
    else:
        for key in keys:
            print(f"{key.name} = {key.default!r}{' (no effect)' if key.reason else ''}")


def _matching(name: str, keys: list[Key]) -> list[Key]:
    found = [key for key in keys if f"{key.name}.".startswith(f"{name}.")]
    if not found:
        names = {key.name for key in keys} | {key.section for key in keys}
        same_end = [other for other in names if other.rpartition(".")[2] == name.rpartition(".")[2]]
        hint = did_you_mean(name, names) or (f" (did you mean {', '.join(same_end[:3])}?)" if same_end else "")
        raise UserError(f"{name} is neither a config key nor a section{hint}.")
    return found


def _explain(key: Key) -> str:
    meaning = f"Accepted, no effect: {key.reason}." if key.reason else key.meaning
    lines = [key.name, meaning, f"default: {key.default!r}", f"values:  {key.values}", f"origin:  {key.origin}"]
    return "\n  ".join(lines)


if __name__ == "__main__":
    sys.exit(main())
