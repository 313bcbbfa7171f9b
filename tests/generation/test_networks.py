import torch
from torch import nn

from PADing.config import load_config
from PADing.generation import PrimitiveGenerator
from PADing.generation.networks import Decoder, Encoder, RelationNet


def small_generator(width=8):
    """A primitive generator without chance."""
    keys = {"HIDDEN_DIM": width, "NHEADS": 2, "TRANS_MEMORY_NUM_QUERY": 5, "TRANS_NUM_LAYER": 2, "NOISE": False}
    keys |= {"TRANS_DROP_RATE": 0.0, "DROP_OUT_ED": 0.0}
    opts = [item for key, value in keys.items() for item in (f"MODEL.MASK_FORMER.{key}", value)]
    return PrimitiveGenerator(load_config("", opts).MODEL.MASK_FORMER, 3)


def test_generated_feature_of_a_class_does_not_depend_on_the_other_classes():
    """Classes share a call only for speed; attention between them would leak other classes into a feature."""
    torch.manual_seed(0)
    generator, queries = small_generator(), torch.randn(4, 8)
    together = generator.generate(queries)
    alone = torch.cat([generator.generate(query[None]) for query in queries])
    torch.testing.assert_close(together, alone)


def test_generator_depends_on_every_primitive():
    torch.manual_seed(0)
    generator = small_generator()
    generator.generate(torch.randn(4, 8)).square().sum().backward()
    assert (generator.dict_feature.weight.grad.abs().sum(dim=1) > 0).all()


def test_relation_net_scores_each_pair_as_if_it_were_alone():
    """Row i, column j belongs to embedding i and class j, the embedding first in the pair."""
    torch.manual_seed(0)
    net, embeddings, classes = RelationNet(4, 6), torch.randn(3, 4), torch.randn(5, 4)
    scores = net(embeddings, classes)
    assert scores.shape == (3, 5)
    for i in range(3):
        for j in range(5):
            pair = torch.cat([embeddings[i], classes[j]])
            expected = torch.sigmoid(net.fc2(torch.relu(net.fc1(pair))))
            torch.testing.assert_close(scores[i, j], expected[0])


def test_encoder_has_no_activation_between_its_linear_maps():
    torch.manual_seed(0)
    net, x = Encoder(0.0, 4), torch.randn(3, 4)
    first, second = net.encoder[0], net.encoder[1]
    expected = nn.functional.leaky_relu(second(first(x)), 0.2)
    torch.testing.assert_close(net(x), expected)


def test_decoder_takes_the_related_part_first():
    torch.manual_seed(0)
    net = Decoder(0.0, 4)
    with torch.no_grad():
        net.decoder[0].weight[:, 4:] = 0  # blind to the second argument
    related = torch.randn(3, 4)
    torch.testing.assert_close(net(related, torch.randn(3, 4)), net(related, torch.randn(3, 4)))
    assert not torch.allclose(net(related, related), net(related + 1, related))
