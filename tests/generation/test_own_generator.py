"""A generator of one's own is one class: registered, chosen by its name, trained and held by PADing's model."""

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from PADing.engine.recipes import build_recipe
from PADing.generation import FeatureGenerator
from PADing.generation.feature_generator import GENERATOR_REGISTRY

from .test_pading import CONFIG, batch, build, load_config, vectors  # noqa: F401  a fixture


class Bent(FeatureGenerator):
    def __init__(self, node, embedding_width):
        super().__init__(node, embedding_width)
        self.bend = nn.Linear(node.HIDDEN_DIM, node.HIDDEN_DIM)

    def generate(self, queries):
        return self.bend(queries.tanh())

    def terms(self, step):
        generated = self.generate(self.fc_projection(step.classes.embeddings)[step.classes.row[step.labels]])
        return {"generate_loss": (generated - step.query_features).square().sum()}


def test_it_is_trained_and_stands_in_the_checkpoint(vectors, monkeypatch):  # noqa: F811
    monkeypatch.setitem(GENERATOR_REGISTRY, "bent", Bent)  # and taken out again: messages list what is registered
    model = build(vectors, "MODEL.MASK_FORMER.GENERATOR", "bent").train()
    recipe, before = build_recipe(load_config(CONFIG), model), model.bend.weight.detach().clone()
    with EventStorage():
        recipe.step(model, batch(model), 0.0)
    assert {"bend.weight", "bend.bias", "fc_projection.weight", "new_fc.weight"} <= set(model.state_dict())
    assert not torch.equal(model.bend.weight, before)
