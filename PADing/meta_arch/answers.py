"""Whether a model's outputs mean on a test set what they meant in training."""

from collections.abc import Sequence

from detectron2.data import MetadataCatalog

from PADing.errors import UserError


def check_answers(model: str, training, test, num_outputs: int, restricted: bool = False) -> None:
    """Refuse a test set whose evaluator would take an output for another class.

    Output i stands for class i of the training split (``vocabulary``). An evaluator takes it for class i of the test
    set; of a model that leaves out seen classes, for class i - ``label_offset``. Data sets that do not come from split
    files have no ``vocabulary`` and are not checked.

    Args:
        model: its name, for the message.
        training, test: metadata of the training set and of the test set.
        num_outputs: classes that the model tells apart.
        restricted: whether the model leaves out seen classes in sets that hold unseen ones only.

    Raises:
        UserError: which set, which class would be taken for which, and which sets fit.
    """
    outputs = list(training.get("vocabulary") or ())[:num_outputs]
    place = _misread(outputs, test, restricted)
    if place is None:
        return
    offset, classes = _offset(test, restricted), _classes(test)
    known = [MetadataCatalog.get(name) for name in MetadataCatalog.list()]
    siblings = [m for m in known if _family(m) == _family(training) and m.get("subset") != "seen"]
    fitting = [m.name for m in siblings if m.get("vocabulary") and _misread(outputs, m, restricted) is None]
    advice = f"these fit: {', '.join(fitting)}" if fitting else "its split file has none"
    if test.get("subset") == "unseen" and not restricted:
        advice += f". {model} cannot be restricted to unseen classes; PADing and D2Zero can"
    raise UserError(
        f"{model} cannot be evaluated on {test.get('name')!r} (DATASETS.TEST): its outputs are the classes of its "
        f"training set {training.get('name')!r}, so {outputs[offset + place]!r} would be counted as "
        f"{classes[place]!r}. Name a set whose classes begin with those of the training set in DATASETS.TEST; {advice}."
    )


def _misread(outputs: Sequence[str], test, restricted: bool) -> int | None:
    """The first class of the test set that another output is taken for; None if there is none."""
    if not test.get("vocabulary"):
        return None
    pairs = zip(outputs[_offset(test, restricted) :], _classes(test), strict=False)
    return next((i for i, (output, name) in enumerate(pairs) if output != name), None)


def _offset(test, restricted: bool) -> int:
    return test.get("label_offset", 0) if restricted else 0


def _family(metadata) -> tuple:
    """Split file and kind of a data set."""
    return metadata.get("split_file"), *(metadata.get(key) is not None for key in ("thing_classes", "stuff_classes"))


def _classes(test) -> list[str]:
    return list(test.get("stuff_classes") or test.get("thing_classes") or ())
