"""What an import took, changed and left out: counts, and the first names for each reason."""

from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

NAMES_SHOWN = 5


@dataclass
class Tally:
    """A count and the first few names."""

    count: int = 0
    names: list[str] = field(default_factory=list)


@dataclass
class Report:
    """Counts by reason. ``left_out``: what the result lacks; ``changed``: what it has in another form."""

    taken: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[str, Tally] = field(default_factory=dict)
    changed: dict[str, Tally] = field(default_factory=dict)

    def leave_out(self, reason: str, name: object, count: int = 1) -> None:
        """Count something that is not imported; ``name``: a file, or a file and the object in it."""
        _add(self.left_out, reason, name, count)

    def change(self, what: str, name: object, count: int = 1) -> None:
        """Count something that is imported in another form."""
        _add(self.changed, what, name, count)

    def table(self) -> str:
        """The report as text."""
        rows = [[role, ", ".join(f"{count} {what}" for what, count in found.items()), ""] for role, found in
                self.taken.items()]  # fmt: skip
        for title, tallies in (("left out", self.left_out), ("changed", self.changed)):
            rows += [[title, f"{tally.count} x {reason}", _shown(tally)] for reason, tally in tallies.items()]
        return tabulate(rows, headers=["", "what", "first names"], maxcolwidths=[None, 60, 60])

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        parts = {"left_out": self.left_out, "changed": self.changed}
        return {"imported": self.taken} | {
            part: [{"reason": reason, "count": tally.count, "first": tally.names} for reason, tally in tallies.items()]
            for part, tallies in parts.items()
        }


def _add(tallies: dict[str, Tally], reason: str, name: object, count: int) -> None:
    tally = tallies.setdefault(reason, Tally())
    tally.count += count
    # A file's name may have bytes that are not UTF-8, and control characters that a terminal would obey.
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name)[:200])
    if len(tally.names) < NAMES_SHOWN and text not in tally.names:
        tally.names.append(text)


def _shown(tally: Tally) -> str:
    return ", ".join(tally.names) + (" ..." if tally.count > len(tally.names) else "")
