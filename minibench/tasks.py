"""What methods are measured by: the three kinds of segmentation and the evaluators' metrics of each."""

from dataclasses import dataclass

__all__ = ["INSTANCE", "PANOPTIC", "SEMANTIC", "TASKS", "TASKS_OF", "Task"]


@dataclass(frozen=True)
class Task:
    """One kind of segmentation, and what its evaluator calls the metrics over seen and unseen classes.

    Attributes:
        key: in ``results.json``. title: for people. metric: its short name.
        seen, unseen, harmonic: keys of the means over seen and over unseen classes and of their harmonic mean, in %.
    """

    key: str
    title: str
    metric: str
    seen: str
    unseen: str
    harmonic: str

    @property
    def metrics(self) -> tuple[str, str, str]:
        """The three keys: seen, unseen, harmonic."""
        return self.seen, self.unseen, self.harmonic


PANOPTIC = Task("panoptic_seg", "Panoptic segmentation", "PQ", "PQ_se", "PQ_un", "PQ_hm")
SEMANTIC = Task("sem_seg", "Semantic segmentation", "IoU", "seen_IoU", "unseen_IoU", "hIoU")
INSTANCE = Task("segm", "Instance segmentation", "AP50", "AP50_seen", "AP50_unseen", "AP50_hm")
TASKS = (PANOPTIC, SEMANTIC, INSTANCE)
# ``task`` of a method -> what it is evaluated on, the task that it is judged by first. A panoptic model gives semantic
# and instance results too.
TASKS_OF = {"panoptic": TASKS, "instance": (INSTANCE,)}
