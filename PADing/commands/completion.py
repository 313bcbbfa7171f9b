"""Print a script that completes ``pading`` and its commands, sub-commands, flags and file names with the Tab key.

    pading completion bash > ~/.local/share/bash-completion/completions/pading
    pading completion zsh > ~/.pading_completion.zsh       # and in ~/.zshrc: source ~/.pading_completion.zsh

The script holds all words itself, so a Tab starts no Python. Print it again after an update of this project.
"""

import argparse
import contextlib
import io
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import pading_cli
from PADing.command_line import CommandParser, quiet_ctrl_c, run_command

SHELLS = ("bash", "zsh")
FILE, NUMBER = ("<file>",), ("<number>",)  # text that is not a file name is completed as one, too


@dataclass(frozen=True)
class Words:
    """What may follow ``path``: sub-commands or flags; ``values`` says what follows a flag.

    Attributes:
        path: the command, such as ("data", "split"); empty for ``pading`` itself.
        words: commands, choices of an argument without a flag, and flags, in the order of ``--help``.
        values: flag -> its choices, or ``FILE`` or ``NUMBER``. Flags without a value are not in it.
        lists: the flags that take several values.
    """

    path: tuple[str, ...]
    words: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    lists: tuple[str, ...] = ()


class _Parsing(BaseException):
    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of a command of ``pading``: the command runs up to the moment when it reads its arguments."""

    def stop(parser: argparse.ArgumentParser, args=None, namespace=None) -> NoReturn:
        raise _Parsing(parser)

    before = argparse.ArgumentParser.parse_args
    state = sys.argv, sys.path[:], sys.excepthook, sys.modules["__main__"]
    argparse.ArgumentParser.parse_args = stop  # type: ignore[assignment]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # of the log
            pading_cli.main(name.split())
    except _Parsing as found:
        return found.parser
    finally:
        argparse.ArgumentParser.parse_args = before  # type: ignore[method-assign]
        sys.argv, sys.path[:], sys.excepthook, sys.modules["__main__"] = state
    raise AssertionError(f"pading {name} reads no arguments")


def all_words() -> Iterator[Words]:
    """``Words`` of ``pading``, of its groups, and of all commands and sub-commands."""
    groups = dict.fromkeys(name.split()[0] for name in pading_cli.COMMANDS)
    yield Words((), (*groups, "--help", "--version"), {})
    for group in groups:
        inside = [name.split()[1] for name in pading_cli.COMMANDS if name.startswith(f"{group} ")]
        if inside:
            yield Words((group,), (*inside, "--help"), {})
    for name, (_, first, _) in pading_cli.COMMANDS.items():
        parser = command_parser(name)
        path = tuple(name.split())
        for sub in first:  # such as `quickstart`, which is `minibench quickstart`
            parser = _subparsers(parser).get(sub, parser)
        yield from _words_of(path, parser)


def _words_of(path: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[Words]:
    commands = _subparsers(parser)
    choices = [str(word) for action in parser._actions if not action.option_strings for word in action.choices or ()]
    flags = [action for action in parser._actions if action.option_strings]
    valued = {flag: action for action in flags if action.nargs != 0 for flag in action.option_strings}
    yield Words(
        path,
        (*choices, *(flag for action in flags for flag in action.option_strings)),
        {flag: _values(action) for flag, action in valued.items()},
        tuple(flag for flag, action in valued.items() if action.nargs not in (None, "?", 1)),
    )
    for name, sub in commands.items():
        yield from _words_of((*path, name), sub)


def _values(action: argparse.Action) -> tuple[str, ...]:
    if action.choices is not None:
        return tuple(map(str, action.choices))
    try:
        if callable(action.type):
            action.type("a")
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return NUMBER
    return FILE


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


# ---- the script

SCRIPT = """\
# Completes `pading`; printed by `pading completion {shell}`.
_pading() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" command="" flag="" values=0 words="" i word
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        if [[ $word == -* ]]; then
            flag="$word" values=0
        elif [[ -n $flag ]]; then
            values=$((values + 1))
        else
            case "$command $word" in
{commands}) command="$command $word" ;;
            esac
        fi
    done
    COMPREPLY=()
    if [[ -n $flag && $current != -* ]]; then
        case "$command $flag" in
{lists}) values=0 ;;
        esac
        if ((values == 0)); then
            case "$command $flag" in
{values}
            esac
            if [[ $words == "<file>" ]]; then
                return  # the shell's own completion of file names
            elif [[ $words == "<number>" ]]; then
                compopt +o default 2>/dev/null
                return
            fi
        fi
    fi
    if [[ -z $words ]]; then
        case "$command" in
{words}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _pading pading
"""


def script(shell: str) -> str:
    """The completion script for ``shell``, one of ``SHELLS``."""
    found = list(all_words())
    commands = [_pattern(words.path) for words in found if words.path]
    lists = [_pattern(words.path, flag) for words in found for flag in words.lists]
    values: dict[str, list[str]] = {}
    for words in found:
        for flag, choices in words.values.items():
            values.setdefault(" ".join(choices), []).append(_pattern(words.path, flag))
    text = SCRIPT.format(
        shell=shell,
        commands=_alternatives(commands, 12),
        lists=_alternatives(lists, 12),
        values="\n".join(
            f"{_alternatives(patterns, 16)}) words={shlex.quote(text)} ;;" for text, patterns in values.items()
        ),
        words="\n".join(
            f"{' ' * 12}{_pattern(words.path)}) words={shlex.quote(' '.join(words.words))} ;;" for words in found
        ),
    )
    return f"autoload -U +X bashcompinit && bashcompinit\n{text}" if shell == "zsh" else text


def _pattern(path: tuple[str, ...], *flag: str) -> str:
    """As the script joins the words: with a space before each command."""
    return shlex.quote(" ".join(("", *path, *flag)))


def _alternatives(patterns: list[str], indent: int) -> str:
    """The patterns of one case, a line each."""
    return " |\\\n".join(" " * indent + pattern for pattern in patterns)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    args = parser.parse_args(argv)
    return run_command(lambda: print(script(args.shell), end=""))


if __name__ == "__main__":
    quiet_ctrl_c()
    sys.exit(main())
