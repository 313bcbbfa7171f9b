"""The report of a benchmark: one self-contained web page, the same as Markdown with pictures, and the figures as JSON.

``bench`` reads ``results.json``; ``statistics`` and ``reading`` compute; ``tables``, ``figures`` and ``sections`` show;
``document`` is what both pages are made of, ``html`` and ``markdown`` write them.
"""

from minibench.report.write import write_report

__all__ = ["write_report"]
