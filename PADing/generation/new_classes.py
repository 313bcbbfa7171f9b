"""Rows of the classifier for classes that no training has named, fitted to generated features.

The generator makes features of any class from its class embedding. The row of a new class is fitted so that the
classifier, with all its own rows fixed, tells the new class's features from those of its own classes: logistic
regression with the own rows' log-sum-exp as offset. Own classes weigh as in training (unseen ones CLASS_ECO), and the
new class CLASS_ECO times as much as an unseen one: generated features of the own classes are nearer to it than the real
ones on which training fits an unseen class, and would keep its row too low. (Chosen by leaving out each unseen class of
a mini model in turn, on 60 images.)

Real features of "no object" are not at hand, so nothing in the data keeps the row low on these. The prior does: a
Gaussian with the mean and variance of the rows of the unseen classes, which the training has fitted to generated
features, with real ones of "no object" beside them.

Each class is fitted by itself, with random numbers seeded by its embedding. So the fit depends neither on the other new
classes nor on their order. Afterwards the biases are lowered if the new classes together would take too much from the
known ones (``new_class_share``).
"""

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from PADing.errors import UserError
from PADing.generation.class_tables import ClassTables
from PADing.generation.feature_generator import FeatureGenerator
from PADing.generation.new_class_share import lowered, samples_per_class
from PADing.meta_arch.vocabulary import Vocabulary

POSITIVES, NEGATIVES = 32, 8  # generated features of the new class, and of each of the model's own
EVIDENCE = 5.0  # the features of a seen class count as so many observations beside the prior
STEPS, CONVERGED = 50, 1e-9
LEAST_VARIANCE = 1e-6  # of the prior, for a classifier whose rows are equal


def vocabulary_rows(
    vocabulary: Vocabulary, generator: FeatureGenerator, classifier: nn.Linear, classes: ClassTables, share: float
) -> tuple[Tensor, Tensor]:
    """Weights (K + 1, d) and biases (K + 1,) of a classifier for a vocabulary, "no object" last.

    The rows of classes that the model knows, and that of "no object", are copies. Those of new classes are in the
    vocabulary's ``state``, or are fitted and put there; then they are lowered as ``share`` (``NEW_CLASS_SHARE``) asks.

    Raises:
        UserError: the rows in ``state`` were fitted for another model; new classes without class embeddings.
    """
    kept = torch.tensor([*vocabulary.kept, len(classifier.bias) - 1], device=classifier.bias.device)
    new = kept < 0
    weight, bias = classifier.weight.detach()[kept], classifier.bias.detach()[kept]
    if not new.any():
        return weight, bias
    if classes.missing or vocabulary.embeddings is None:
        raise UserError(f"PADing cannot learn new classes without its class embeddings. {classes.missing}")
    state, model = vocabulary.state, _fingerprint(generator, classifier, classes)
    if state and not torch.equal(state.get("model", torch.empty(0)), model):
        raise UserError(
            "The rows of new classes in the vocabulary's file were fitted for another model (other weights, or another "
            "method). Name the model that has written it; or give the names again, so that they are fitted anew."
        )
    wanted = vocabulary.embeddings[new[:-1].cpu()]
    rows = state.get("rows")
    if rows is None:
        fitter = RowFitter(generator, classifier, classes.all_embeddings(), classes.unseen, classes.favour)
        shown = tqdm(wanted, desc="new classes", unit="class", mininterval=1, delay=2, leave=False)
        rows = torch.stack([fitter.fit(embedding) for embedding in shown])
        state.update(model=model, rows=rows.cpu())
    if rows.shape != (len(wanted), weight.shape[1] + 1) or not rows.isfinite().all():
        raise UserError(f"The vocabulary's file is damaged: it has rows of shape {tuple(rows.shape)} for new classes.")
    rows = lowered(rows.to(weight), *_known(vocabulary, generator, classifier, classes), share)
    weight[new], bias[new] = rows[:, :-1], rows[:, -1]
    return weight, bias


def _known(
    vocabulary: Vocabulary, generator: FeatureGenerator, classifier: nn.Linear, classes: ClassTables
) -> tuple[Tensor, Tensor]:
    """Rows (k + 1, d + 1) of the model's own classes in a vocabulary and of "no object"; their features (n, d + 1)."""
    kept = sorted(i for i in vocabulary.kept if i >= 0)
    rows = torch.cat([classifier.weight, classifier.bias[:, None]], dim=1).detach()[[*kept, -1]]
    if not kept:
        return rows, rows[:0]
    return rows, generated_features(generator, classes.all_embeddings()[kept], samples_per_class(len(kept)))


@torch.no_grad()
def generated_features(generator: FeatureGenerator, embeddings: Tensor, count: int) -> Tensor:
    """Features (n * count, d + 1) float64 of classes with embeddings (n, e), class by class; the last column is 1.

    The random numbers depend on the embeddings alone.
    """
    digest = hashlib.blake2b(embeddings.cpu().numpy().tobytes(), digest_size=7).digest()
    device = generator.fc_projection.weight.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest, "little"))
        projected = generator.fc_projection(embeddings.to(device).repeat_interleave(count, 0))
        features = generator.generate(projected)
    return F.pad(features.double(), (0, 1), value=1.0)


def _fingerprint(generator: FeatureGenerator, classifier: nn.Linear, classes: ClassTables) -> Tensor:
    """A digest (16,) uint8 of all that decides the rows of new classes."""
    digest = hashlib.blake2b(str(classes.favour).encode(), digest_size=16)
    for values in (generator.state_dict(), classifier.state_dict(), {"classes": classes.all_embeddings()}):
        for name in sorted(values):
            digest.update(name.encode() + values[name].detach().cpu().contiguous().numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


class RowFitter:
    """Fits rows to the generated features of new classes.

    Args:
        generator: in evaluation mode.
        classifier: features (d) -> logits (C + 1), "no object" last. It is not changed.
        embeddings: (C, e), of the model's own classes.
        learned: (U,) outputs of the classes whose rows the training has fitted to generated features.
        favour: weight of each class in ``learned`` relative to the other own classes, and of the new class relative to
            those in ``learned``.
    """

    @torch.no_grad()
    def __init__(
        self, generator: FeatureGenerator, classifier: nn.Linear, embeddings: Tensor, learned: Tensor, favour: float
    ):
        self.generator = generator
        rows = torch.cat([classifier.weight, classifier.bias[:, None]], dim=1).double()
        known = rows[learned] if len(learned) > 1 else rows[:-1]
        self.mean = known.mean(0)
        # One variance for all weights, one for the bias.
        variance = known.var(0) if len(known) > 1 else torch.ones_like(self.mean)
        self.variance = torch.cat([variance[:-1].mean().expand(len(variance) - 1), variance[-1:]])
        self.variance = self.variance.clamp(min=LEAST_VARIANCE)
        self.rows = rows
        self.others = torch.cat([generated_features(generator, embedding[None], NEGATIVES) for embedding in embeddings])
        self.offset = self._offset(self.others)
        weights = torch.ones(len(embeddings), device=rows.device).index_fill(0, learned, favour)
        self.weight = EVIDENCE * favour**2 / POSITIVES
        self.weights = EVIDENCE * weights.double().repeat_interleave(NEGATIVES) / NEGATIVES

    @torch.no_grad()
    def fit(self, embedding: Tensor) -> Tensor:
        """The row (d + 1,) float32 of a class, bias last, from its embedding (e,)."""
        own = generated_features(self.generator, embedding[None], POSITIVES)
        features = torch.cat([own, self.others])
        offset = torch.cat([self._offset(own), self.offset])
        target = torch.zeros(len(features), dtype=torch.float64, device=features.device)
        target[: len(own)] = 1
        weight = torch.cat([torch.full_like(offset[: len(own)], self.weight), self.weights])
        return _logistic(features, offset, target, weight, self.mean, self.variance).float()

    def _offset(self, features: Tensor) -> Tensor:
        return (features @ self.rows.T).logsumexp(1)


def _logistic(
    features: Tensor, offset: Tensor, target: Tensor, weight: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """The parameters (p,) that minimise ``sum weight * BCE(features @ row - offset, target) + |row - mean|^2 / 2 var``.

    Newton's method with step halving; the loss is strictly convex, so it finds the one minimum. All in float64.
    """

    def loss(row: Tensor) -> Tensor:
        error = F.binary_cross_entropy_with_logits(features @ row - offset, target, weight=weight, reduction="sum")
        return error + ((row - mean) ** 2 / variance).sum() / 2

    row = mean.clone()
    value = loss(row)
    for _ in range(STEPS):
        probability = (features @ row - offset).sigmoid()
        gradient = features.T @ (weight * (probability - target)) + (row - mean) / variance
        curvature = weight * probability * (1 - probability)
        hessian = (features * curvature[:, None]).T @ features + torch.diag(1 / variance)
        step = torch.linalg.solve(hessian, gradient)
        if gradient @ step < CONVERGED * (1 + value.abs()):
            break
        size = 1.0
        while size > 1e-6 and (new := loss(row - size * step)) > value:
            size /= 2
        row, value = row - size * step, torch.minimum(new, value)
    return row
