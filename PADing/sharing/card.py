"""The model card of a shared model: README.md with what is known of the training, and what is not."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from detectron2.config import CfgNode

from PADing.class_space import ClassSpace

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&])")
_LIMIT = 300  # classes of one list


@dataclass(frozen=True)
class Facts:
    """What a card tells.

    Attributes:
        name: heading. loaded_by: folder or ``OWNER/NAME``.
        cfg: of the training. space: classes of its first evaluation set.
        metrics: content of ``results.json``; None: not evaluated.
        embeddings: source of the class embeddings; "": the folder has none.
        license_name: such as ``mit``; "": not chosen. description: of the owner.
        plugins: modules beyond this program that the config names.
    """

    name: str
    loaded_by: str
    cfg: CfgNode
    space: ClassSpace
    metrics: Mapping[str, Any] | None
    embeddings: str
    license_name: str
    description: str
    plugins: Sequence[str]


def model_card(facts: Facts) -> str:
    """The text of README.md."""
    parts = [_front(facts), f"# {_text(facts.name)}", *_what(facts), *_use(facts), *_classes(facts.space)]
    return "\n\n".join([*parts, *_metrics(facts), *_not_tested(facts), *_license(facts)]) + "\n"


def _front(facts: Facts) -> str:
    head: dict[str, Any] = {"library_name": "pading", "pipeline_tag": "image-segmentation"}
    if facts.license_name:
        head["license"] = facts.license_name
    head["tags"] = ["zero-shot-segmentation", f"{facts.space.kind}-segmentation", facts.cfg.MODEL.META_ARCHITECTURE]
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---"


def _what(facts: Facts) -> Iterator[str]:
    cfg, space = facts.cfg, facts.space
    yield (
        f"A model for zero-shot {space.kind} segmentation: {_text(cfg.MODEL.META_ARCHITECTURE)} on Mask2Former. It "
        f"predicts {len(space)} classes. {len(space.unseen)} of them are unseen: no training image shows them, and the "
        "model knows their class embeddings only."
    )
    if facts.description:
        yield facts.description.strip()
    batch = f"{cfg.SOLVER.MAX_ITER:,} iterations of {cfg.SOLVER.IMS_PER_BATCH} images"
    lines = [f"- Training: {batch} of {_names(cfg.DATASETS.TRAIN)}, seed {cfg.SEED}."]
    if facts.embeddings:
        lines.append(f"- Class embeddings: `class_embeddings.npz`; source: {_text(facts.embeddings)}.")
    if facts.plugins:
        lines.append(f"- It needs plug-ins that are not part of the package: {_names(facts.plugins)}.")
    yield "\n".join(lines)


def _use(facts: Facts) -> Iterator[str]:
    trust = ", trust_plugins=True" if facts.plugins else ""
    yield "## Use"
    yield (
        "```python\nfrom PADing.inference import from_pretrained\n"
        f"predictor = from_pretrained({json.dumps(facts.loaded_by)}{trust})\n"
        "result = predictor(image)  # (H, W, 3) uint8 RGB\n```"
    )
    yield (
        "No data set is needed. `PADing.visualization.ImageDrawer(predictor.metadata)` draws results: "
        "`drawer.draw_output(image, result)`. The commands of the package take this folder, or `hf://OWNER/NAME`, as "
        "`--config-file`."
    )


def _classes(space: ClassSpace) -> Iterator[str]:
    yield "## Classes"
    for title, ids in (("Seen", space.seen), ("Unseen", space.unseen)):
        if not ids:
            continue
        if space.kind == "semantic":
            yield f"{title} ({len(ids)}): {_listed(space, sorted(ids))}"
            continue
        for part, chosen in (("things", ids & space.things), ("stuff", ids - space.things)):
            if chosen:
                yield f"{title} {part} ({len(chosen)}): {_listed(space, sorted(chosen))}"
    yield "`split.yaml` has their order, ids and colors."


def _listed(space: ClassSpace, ids: Sequence[int]) -> str:
    names = ", ".join(_text(space.names[i]) for i in ids[:_LIMIT])
    return names + (f", and {len(ids) - _LIMIT} more." if len(ids) > _LIMIT else ".")


def _metrics(facts: Facts) -> Iterator[str]:
    yield "## Metrics"
    if facts.metrics is None:
        yield "This model was not evaluated before it was shared."
        return
    rows = [row for name, value in facts.metrics.items() for row in _rows(name, value)]
    if not rows:
        yield "The evaluation of this model has no metrics."
        return
    yield "As the training's folder has them in `results.json`, which also has the metrics of each class."
    head = ["| data set | task | metric | value |", "|---|---|---|---|"]
    yield "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


def _rows(name: str, tasks: Any) -> Iterator[tuple[str, str, str, str]]:
    for task, metrics in tasks.items() if isinstance(tasks, Mapping) else ():
        for metric, value in metrics.items() if isinstance(metrics, Mapping) else ():
            if "-" in metric or isinstance(value, Mapping | list | str):
                continue  # of one class
            known = isinstance(value, int | float) and math.isfinite(value)
            yield _text(name), _text(task), _text(metric), f"{value:.2f}" if known else "undefined"


def _not_tested(facts: Facts) -> Iterator[str]:
    yield "## What was not tested"
    if facts.metrics is None:
        first = "- Nothing was measured."
    else:
        first = f"- Images of other kinds than those of {_names(list(facts.metrics))}."
    yield "\n".join(
        [
            first,
            "- Classes beyond those above. Results for other unseen classes may be worse.",
            "- Bias between groups of people, safety, and use in decisions about people.",
            "- Speed and memory on your machine.",
        ]
    )


def _license(facts: Facts) -> Iterator[str]:
    yield "## License"
    if facts.license_name:
        yield f"The weights: {_text(facts.license_name)}. The images of the training have licenses of their own."
    else:
        yield "Its owner has not chosen a license. Ask before you use it."


def _names(names: Sequence[str]) -> str:
    return ", ".join(_text(name) for name in names)


def _text(text: str) -> str:
    """One line of plain text in Markdown, whatever characters a class name has."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))
