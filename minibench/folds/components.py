"""What the results say about each component of the papers: a table of claims, comparisons and verdicts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minibench.folds.cause_report import CLAIM, metric_name
from minibench.folds.causes import NO, OPEN, YES, Verdict, all_rows, read_causes, verdicts
from minibench.folds.differences import Difference
from minibench.folds.markdown import MISSING, table
from minibench.paired import BETTER, UNDECIDED

__all__ = ["COMPONENTS", "Component", "components"]


@dataclass(frozen=True)
class Component:
    """A part of a method that its paper says to help.

    Attributes:
        paper, name: as shown.
        pairs: comparisons of the benchmark's rows, (with, without).
        experiments: cause experiments whose claims are about it.
    """

    paper: str
    name: str
    pairs: tuple[tuple[str, str], ...] = ()
    experiments: tuple[str, ...] = ()


COMPONENTS = (
    Component("PADing", "a generator, instead of a linear projection", (("pading", "projection"),), ("projection",)),
    Component("PADing", "primitives", (("pading", "pading_no_primitives"),)),
    Component("PADing", "noise", (("pading", "pading_no_noise"),), ("noise",)),
    Component("PADing", "MMD between sets of features", (), ("class_conditional",)),
    Component("PADing", "alignment of relations", (("pading", "pading_no_alignment"),)),
    Component("PADing", "disentanglement", (("pading", "pading_no_disentanglement"),)),
    Component("PADing", "alignment and disentanglement together", (), ("structure",)),
    Component("PADing", "primitives, alignment and disentanglement together", (("pading", "gmmn"),)),
    Component("PADing", "self-training", (), ("self_training",)),
    Component("D2Zero", "input-conditional classifier", (("d2zero", "d2zero_plain_classifier"),)),
    Component(
        "D2Zero", "image-adaptive background", (("d2zero", "d2zero_no_image_background"),), ("image_background",)
    ),
    Component("D2Zero", "unseen-constrained loss", (("d2zero_unseen_loss", "d2zero"),), ("unseen_loss",)),
)


def components(results: Mapping[str, Any], differences: Sequence[Difference], causes: Mapping[str, Any] | None) -> str:
    """The section of the report; ``causes``: the content of ``causes.json``, or None. "" if nothing was compared.

    Raises:
        UserError: ``causes`` has no rows.
    """
    judged = _judged(results, causes)
    lines, answers = [], []
    for one in COMPONENTS:
        evidence = [*_of_pairs(one, differences), *_of_experiments(one, judged)]
        answers.append(_verdict([answer for answer, _ in evidence]))
        for number, (answer, cells) in enumerate(evidence):
            title = [one.paper, one.name, f"**{answers[-1]}**"] if number == 0 else ["", "", ""]
            lines.append([*title, *cells, CLAIM[answer]])
    if not lines:
        return ""
    titles = ["Paper", "Component", "Claim", "Comparison", "Metric", "Difference (95 % interval)", "Here"]
    text = (
        "The papers claim that each component helps, and that PADing's MMD needs no classes. A claim *holds* where its "
        "difference is shown, *does not hold* where equality or the opposite is shown, and is *open* where nothing "
        "is. *In part*: other comparisons of the same component are open. It *depends* where comparisons under "
        "different conditions disagree. The rows of linked comparisons were scored on fewer images, and corrected by "
        "Holm's method among themselves."
    )
    return f"## Components of the papers\n\n{text}\n\n{table(titles, lines)}"


def _judged(results: Mapping[str, Any], causes: Mapping[str, Any] | None) -> list[Verdict]:
    if causes is None:
        return []
    experiments = read_causes()
    return verdicts(experiments, all_rows(experiments, causes, results))


def _of_pairs(one: Component, differences: Sequence[Difference]) -> Iterator[tuple[str, list[str]]]:
    for difference in differences:
        if (difference.upper, difference.lower) in one.pairs and difference.values:
            verdict = difference.found.verdict
            answer = OPEN if verdict == UNDECIDED else YES if verdict == BETTER else NO
            name = f"{difference.upper} − {difference.lower}"
            yield answer, [name, f"{difference.task.metric} AUSUC", _interval(difference)]


def _of_experiments(one: Component, judged: Sequence[Verdict]) -> Iterator[tuple[str, list[str]]]:
    for verdict in judged:
        if verdict.experiment in one.experiments and verdict.claim and verdict.values:
            part = verdict.expectation
            name = f"{part.first} − {part.second} ([{verdict.experiment}](causes.md#{verdict.experiment}))"
            yield verdict.claim, [name, metric_name(part.metric), _interval(verdict)]


def _interval(one: Difference | Verdict) -> str:
    mean = sum(one.values.values()) / len(one.values)
    return f"{mean:+.2f} ({one.test.low:+.2f} to {one.test.high:+.2f})" if one.test else f"{mean:+.2f} ({MISSING})"


def _verdict(answers: Sequence[str]) -> str:
    shown = {answer for answer in answers if answer != OPEN}
    if len(shown) > 1:
        return "depends"
    return CLAIM[next(iter(shown), OPEN)] + (", in part" if shown and OPEN in answers else "")
