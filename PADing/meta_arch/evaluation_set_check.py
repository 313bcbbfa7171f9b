"""Checks that the evaluation set has the model's classes, in the model's order."""

from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from PADing.class_space import ClassSpace
from PADing.errors import UserError
from PADing.meta_arch.contract import ModelContract, check_takes_vocabulary, contract_of


def check_evaluation_set(model: type[ModelContract], training: Any, test: Any, num_outputs: int) -> None:
    """Refuse an evaluation set on which an output of the model would be counted as another class.

    Output i of ``num_outputs`` is class i of the training split's vocabulary. An evaluator counts it as class i of the
    evaluation set, or as class i - ``offset`` for a model that leaves out seen classes. Data sets that do not come from
    split files are not checked. Sets for evaluation alone (``PADing.meta_arch.named_classes``) need a model that takes
    a vocabulary.

    Args:
        model: the class of the model.
        training: metadata of the training set.
        test: metadata of the evaluation set.
        num_outputs: the number of the model's classes.

    Raises:
        UserError: names the data set, the first wrong class, and the data sets that fit.
    """
    restricted, name = model.restricts_to_unseen, model.__name__
    source, space = split_classes(training), split_classes(test)
    if source is None or space is None:
        return
    if space.evaluation_only:
        check_takes_vocabulary(model)
        return
    outputs = source.vocabulary[:num_outputs]
    place = _misread(outputs, space, restricted)
    if place is None:
        return
    registered = map(MetadataCatalog.get, MetadataCatalog.list())
    siblings = filter(None, (split_classes(m) for m in registered if m.get("split_file") == training.get("split_file")))
    candidates = [s for s in siblings if s.kind == source.kind and s.subset != "seen"]
    fitting = [s.data_set for s in candidates if _misread(outputs, s, restricted) is None]
    advice = f"these fit: {', '.join(fitting)}" if fitting else "its split file has none"
    if space.subset == "unseen" and not restricted:
        able = ", ".join(other for other, kind in META_ARCH_REGISTRY if contract_of(kind).restricts_to_unseen)
        advice += f". {name} cannot be restricted to unseen classes; {able} can"
    output = outputs[place + (space.offset if restricted else 0)]
    raise UserError(
        f"{name} cannot be evaluated on {space.data_set!r} (DATASETS.TEST): its outputs are the classes of its "
        f"training set {source.data_set!r}, so {output!r} would be counted as {space.class_names[place]!r}. Name a set "
        f"whose classes begin with those of the training set in DATASETS.TEST; {advice}."
    )


def split_classes(metadata: Any) -> ClassSpace | None:
    """The classes of a data set from a split file; None for others, which may use other class names."""
    try:
        space = ClassSpace.of(metadata)
    except UserError:
        return None
    return space if space.subset else None


def _misread(outputs: tuple[str, ...], space: ClassSpace, restricted: bool) -> int | None:
    """The first class of the evaluation set that differs from the output counted as it; None if all agree."""
    pairs = zip(outputs[space.offset if restricted else 0 :], space.class_names, strict=False)
    return next((i for i, (output, name) in enumerate(pairs) if output != name), None)
