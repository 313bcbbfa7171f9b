"""PADing's second stage as tensors: the networks around the primitives, and the objectives of both training steps."""

from PADing.generation.losses import classifier_loss, cosine_similarity, mmd, similarity_kl
from PADing.generation.networks import Decoder, Encoder, MLPGenerator, RelationNet, generate
from PADing.generation.objective import (
    GENERATOR_TERMS,
    GeneratorParts,
    StructureWeights,
    generator_terms,
)
from PADing.generation.self_training import pseudo_labels

__all__ = [
    "GENERATOR_TERMS",
    "Decoder",
    "Encoder",
    "GeneratorParts",
    "MLPGenerator",
    "RelationNet",
    "StructureWeights",
    "classifier_loss",
    "cosine_similarity",
    "generate",
    "generator_terms",
    "mmd",
    "pseudo_labels",
    "similarity_kl",
]
