"""Runs cases, each in a process of its own, and records as they end what was tried and what failed."""

import json
import os
import select
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import children

SURVIVED, FAILED, SKIPPED = "survived", "failed", "skipped"


class Skip(Exception):
    """The case cannot be tried on this machine; the message says why."""


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: KIND/SUBJECT/WHAT, which ``--only`` selects by.
        run: called with a folder of its own and what ``begin`` has returned; it returns a note for the table, or
            raises. An AssertionError says what is wrong.
        seconds: the case fails when it takes longer.
        group: cases of one group run one after the other in one process; "": a process of its own.
        begin: called once in each process with the folder of the group.
        memory: bytes that the process may take beyond what it has at its start; 0: no limit.
    """

    name: str
    run: Callable[[Path, Any], str | None]
    seconds: float = 90
    group: str = ""
    begin: Callable[[Path], Any] | None = None
    memory: int = 0


@dataclass
class Record:
    """What has been tried: a line of JSON a case in ``results.jsonl``, and the table in ``table.md``."""

    folder: Path
    seed: int
    lines: list[dict] = field(default_factory=list)

    def add(self, case: Case, outcome: str, seconds: float, note: str = "") -> None:
        line = {"case": case.name, "outcome": outcome, "seconds": round(seconds, 3), "note": note, "seed": self.seed}
        self.lines.append(line)
        with open(self.folder / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=True) + "\n")
        if outcome == FAILED:
            print(f"\nFAILED {case.name}: {note}\n  repeat: {repeat(case, self.seed)}", flush=True)

    def table(self) -> str:
        """Tried, survived, failed, skipped and seconds of each subject, in Markdown."""
        rows: dict[str, Counter] = {}
        for line in self.lines:
            row = rows.setdefault("/".join(line["case"].split("/")[:2]), Counter())
            row[line["outcome"]] += 1
            row["seconds"] += line["seconds"]
        total = sum(rows.values(), Counter())
        text = ["| cases | tried | survived | failed | skipped | seconds |", "| --- | --- | --- | --- | --- | --- |"]
        for name, row in (*rows.items(), ("all", total)):
            tried = row[SURVIVED] + row[FAILED]
            text.append(
                f"| {name} | {tried} | {row[SURVIVED]} | {row[FAILED]} | {row[SKIPPED]} | {row['seconds']:.0f} |"
            )
        return "\n".join(text)

    def write_table(self) -> None:
        (self.folder / "table.md").write_text(self.table() + "\n", encoding="utf-8")


def repeat(case: Case, seed: int) -> str:
    """The command that runs one case again."""
    return f"python -m tests.faults --seed {seed} --only {case.name}"


def earlier_lines(folder: Path, seed: int) -> list[dict]:
    """What an earlier run with the same seed has tried."""
    file = folder / "results.jsonl"
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines()) if file.is_file() else ()
    return [line for line in lines if line["seed"] == seed]


def run(cases: Sequence[Case], record: Record, work: Path, until: float) -> bool:
    """Run the cases; False if time (``until``, of ``time.monotonic``) ends before the last one."""
    shown, subject = time.monotonic(), ""
    place = 0
    while place < len(cases):
        if time.monotonic() > until:
            return False
        if (now := "/".join(cases[place].name.split("/")[:2])) != subject:
            print(f"{' ' if subject else ''}{now}", end="", flush=True)
            subject = now
        elif time.monotonic() - shown > 5:
            shown = time.monotonic()
            print(".", end="", flush=True)
            record.write_table()
        group = [cases[place]]
        while cases[place].group and place + len(group) < len(cases):
            if cases[place + len(group)].group != cases[place].group:
                break
            group.append(cases[place + len(group)])
        place += _run_group(group, record, work, until)
    return True


def _run_group(group: Sequence[Case], record: Record, work: Path, until: float) -> int:
    """Run cases in one child until one hangs or crashes; returns the number of those that have an outcome."""
    folder = work / (group[0].group or group[0].name).replace("/", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reader, writer = os.pipe()
    child = children.fork(lambda: _serve(group, folder, reader, writer, until), folder / "case.log")
    os.close(writer)
    done, text, failed, started = 0, b"", False, time.monotonic()
    limit = group[0].seconds + 60  # its beginning
    try:
        while done < len(group):
            left = started + limit - time.monotonic()
            if not select.select([reader], [], [], max(0.0, left))[0]:
                record.add(group[done], FAILED, time.monotonic() - started, f"no end after {limit:.0f} s")
                done, failed = done + 1, True
                break
            piece = os.read(reader, 1 << 16)
            if not piece:
                status = children.wait(child, 20)
                if status == 0:
                    break  # its time is over
                tail = (folder / "case.log").read_text(errors="replace")[-1500:]
                record.add(group[done], FAILED, time.monotonic() - started, f"its process ended with {status}: {tail}")
                return done + 1
            text += piece
            *whole, text = text.split(b"\n")
            for line in whole:
                outcome, seconds, note = json.loads(line)
                record.add(group[done], outcome, seconds, note)
                failed |= outcome == FAILED
                done, started = done + 1, time.monotonic()
                limit = group[min(done, len(group) - 1)].seconds
    finally:
        os.close(reader)
        children.kill_group(child)
        try:
            os.waitpid(child, 0)
        except ChildProcessError:
            pass
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)
    return max(done, 1) if time.monotonic() < until else len(group)


def _serve(group: Sequence[Case], folder: Path, reader: int, writer: int, until: float) -> int:
    os.close(reader)
    if group[0].memory:
        children.limit_memory(group[0].memory)
    context: Any = None
    problem: BaseException | None = None
    try:
        context = group[0].begin(folder) if group[0].begin else None
    except BaseException as error:
        traceback.print_exc()
        problem = error
    for case in group:
        if time.monotonic() > until:
            return 0
        start, outcome, note = time.monotonic(), SURVIVED, ""
        try:
            if problem is not None:
                raise problem
            note = case.run(folder, context) or ""
        except Skip as reason:
            outcome, note = SKIPPED, str(reason)
        except BaseException as error:
            traceback.print_exc()
            outcome, note = FAILED, f"{'' if isinstance(error, AssertionError) else type(error).__name__}: {error}"
        sys.stdout.flush(), sys.stderr.flush()
        message = json.dumps([outcome, time.monotonic() - start, note[:2000].lstrip(": ")])
        os.write(writer, message.encode() + b"\n")
    return 0


def select_cases(cases: Iterable[Case], wanted: Sequence[str]) -> list[Case]:
    """Those whose names begin with one of ``wanted``, whole parts of a name, in any case of letters; all if empty."""
    starts = [want.lower().strip("/") for want in wanted]
    return [c for c in cases if not starts or any(f"{c.name.lower()}/".startswith(f"{s}/") for s in starts)]
