"""What a second stage's features and gradients are like, beside its metrics. Nothing here changes a training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minibench.folds.features import Features
from minibench.folds.truth import Truth
from PADing.generation.structured import RELATION_WEIGHT, UNRELATED_WEIGHT

__all__ = ["Gradients", "feature_norms", "unseen_only"]

LOOKS = 10  # of a training
REPEATS = 16  # generated features of a class
# The parameters that a generated feature depends on.
_GENERATING = ("fc_projection.", "generator.", "dict_feature.")


class Gradients:
    """Norms of the gradients that the terms of a generator's loss have on what generates features.

    Pass it to ``minibench.folds.second.train`` as ``look``. Each term has the weight that it has in the loss.
    """

    def __init__(self, iterations: int):
        self.period = max(1, iterations // LOOKS)
        self.norms: dict[str, list[float]] = {}

    def __call__(self, model: Any, batch: list[dict], iteration: int) -> None:
        """Note the norms, if it is time."""
        if iteration % self.period:
            return
        with torch.random.fork_rng(devices=[]):
            terms, _, _ = model.generator_terms(batch)
        names = [(name, p) for name, p in model.named_parameters() if name.startswith(_GENERATING)]
        parameters = [p for _, p in names if p.requires_grad]
        parts = weighted(terms, getattr(model.feature_generator, "weights", (0.0, 0.0, 0.0, 0.0)))
        structure = sum(value for name, value in parts.items() if name not in ("synthesis", "classification"))
        parts |= {"structure": structure, "others": parts["synthesis"] + parts["classification"]}
        for name, value in parts.items():
            self.norms.setdefault(name, []).append(_norm(value, parameters))

    def metrics(self) -> dict[str, float]:
        """Means over the looks, and the structure terms' norm as a share of the two others'."""
        found = {f"gradient_{name}": float(np.mean(values)) for name, values in self.norms.items()}
        if found.get("gradient_others"):
            found["gradient_structure_share"] = found["gradient_structure"] / found["gradient_others"]
        return found


def weighted(terms: Mapping[str, Tensor], weights: tuple[float, float, float, float]) -> dict[str, Any]:
    """The parts of ``generate_loss``, see ``StructuredGenerator.terms``; their sum is the loss."""
    total, first, second, third = weights
    alignment = sum(terms.get(name, 0.0) for name in ("L_a_s", "L_a_u", "L_a_su")) / 3
    unrelated = UNRELATED_WEIGHT * (terms.get("L_u_s", 0.0) + terms.get("L_u_u", 0.0)) / 2
    relation = RELATION_WEIGHT * (terms.get("L_rel_s", 0.0) + terms.get("L_rel_u", 0.0)) / 2
    reconstruction = (terms.get("L_rec_s", 0.0) + terms.get("L_rec_u", 0.0)) / 2
    return {
        "synthesis": terms["L_G"],
        "classification": terms["L_cls"],
        "alignment": total * first * alignment,
        "unrelated": total * first * unrelated,
        "relation": total * second * relation,
        "reconstruction": total * third * reconstruction,
    }


def _norm(value: Any, parameters: list[nn.Parameter]) -> float:
    if not isinstance(value, Tensor) or not value.requires_grad:
        return 0.0
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return float(torch.stack([g.norm() for g in found if g is not None] or [torch.zeros(())]).norm())


@torch.no_grad()
def feature_norms(model: Any, features: Features) -> dict[str, float]:
    """Mean lengths of real and generated features of seen and of unseen classes.

    Real features of unseen classes are those of images that no method may use; nothing is chosen by them.
    """
    classes, generator = model.classes, model.feature_generator
    rows = generator.fc_projection(classes.all_embeddings()).repeat(REPEATS, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = generator.generate(rows).norm(dim=1).view(REPEATS, -1).mean(0).numpy()
    unseen = np.isin(np.arange(len(made)), classes.unseen.numpy())
    found = {"norm_generated_seen": float(made[~unseen].mean()), "norm_generated_unseen": float(made[unseen].mean())}
    own = features.train_classes < len(made)
    found["norm_real_seen"] = _length(features.train_features[own])
    other = features.other_classes
    known = np.append(unseen, False)[other]
    found["norm_real_unseen"] = _length(features.other_features[known])
    if found["norm_real_unseen"]:
        found["norm_ratio_unseen"] = found["norm_generated_unseen"] / found["norm_real_unseen"]
    return found


def _length(features: np.ndarray) -> float:
    return float(np.linalg.norm(features, axis=-1).mean()) if len(features) else 0.0


def unseen_only(logits: np.ndarray, features: Features, truth: Truth) -> dict[str, float]:
    """Accuracy on found unseen segments if unseen classes alone compete, of things and of stuff: means over classes.

    Args:
        logits: (M, Q, K + 1) on the validation images.
        features: has the found segments. truth: annotation; its classes are those of ``logits``.
    """
    image, query, label = features.found.T
    columns = np.flatnonzero(truth.unseen)
    chosen = columns[logits[image, query][:, columns].argmax(1)]
    found = {}
    for name, kind in (("things", truth.things), ("stuff", ~truth.things)):
        known = [c for c in np.flatnonzero(truth.unseen & kind) if (label == c).any()]
        own = [100 * (chosen[label == c] == c).mean() for c in known]
        if own:
            found[f"acc_un_only_{name}"] = float(np.mean(own))
    return found
