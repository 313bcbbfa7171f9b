"""The sections of the report, each a function of the benchmark.

What is not there is left out with a note; a report is never lost for a missing picture.
"""

from minibench.report.sections.classes import class_section
from minibench.report.sections.embeddings import embedding_section
from minibench.report.sections.naming import confusion_section
from minibench.report.sections.pictures import gallery_section
from minibench.report.sections.results import difference_section, reading_section, results_section
from minibench.report.sections.training import curve_section

__all__ = [
    "class_section",
    "confusion_section",
    "curve_section",
    "difference_section",
    "embedding_section",
    "gallery_section",
    "reading_section",
    "results_section",
]
