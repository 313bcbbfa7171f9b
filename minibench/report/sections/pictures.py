"""The best, median and worst picture of a method."""

from collections.abc import Callable, Iterable

from minibench.report.album import Album
from minibench.report.bench import INSTANCE, Bench, Method, Run
from minibench.report.document import Note, Paragraph, Picture, Section, Strip
from minibench.report.gallery import Sample, best_median_worst, instance_samples, panoptic_samples, tiles
from minibench.report.predictions import Validation
from minibench.report.sections.files import attempt, opened

__all__ = ["gallery_section"]


def gallery_section(bench: Bench, methods: Iterable[Method], album: Album) -> Section:
    """The best, median and worst picture of each method."""
    section = Section("Gallery", "gallery")
    text = "Of the validation pictures that show an unseen class: the best, the median and the worst. Unseen classes "
    section.blocks.append(Paragraph(text + "are outlined in magenta."))
    rules = []
    for method in methods:
        is_instance = method.main_task is INSTANCE
        samples = instance_samples if is_instance else panoptic_samples
        outcome = attempt(section, method, lambda m=method, s=samples: _sampled(bench, m, s))
        if outcome is None:
            continue
        run, validation, found = outcome
        measure = "mask IoU" if is_instance else "PQ"
        for rank, sample in best_median_worst(found):
            place = f"{rank.lower()} of {len(found)}"
            title = f"**{method.title}**, {place}: {measure} {sample.quality:.0f} (seed {run.seed})"
            section.blocks.append(Strip(title, _tiles(album, method, rank, sample, validation)))
        rules.append(
            f"{method.title}, mask IoU: mean over the picture's objects of the IoU with the shown instance of the same "
            "class. Shown are detections with at least half of the picture's best score, unless better ones hide them."
            if is_instance
            else f"{method.title}, PQ: mean over the classes in the picture's truth or prediction."
        )
    section.blocks += [Note(" ".join(rules))] if rules else []
    return section


def _sampled(bench: Bench, method: Method, samples: Callable) -> tuple[Run, Validation, list[Sample]]:
    run, validation = opened(bench, method)
    return run, validation, samples(run.folder, validation)


def _tiles(album: Album, method: Method, rank: str, sample: Sample, validation: Validation) -> list[Picture]:
    found = []
    for caption, image in tiles(sample, validation):
        seg = {"Truth": sample.truth, "Prediction": sample.predicted}.get(caption)
        alt = f"{caption} of picture {sample.record['image_id']}"
        if seg is not None:
            names = [
                validation.names[label] + (" (unseen)" if label in validation.unseen else "")
                for segment, label in seg.classes.items()
                if (seg.ids == segment).any()
            ]
            alt += f": {', '.join(names) or 'nothing'}"
        name = f"{method.name}_{rank}_{caption}".lower()
        found.append(album.photo(name, image, f"{alt}.", caption))
    return found
