"""Where class embeddings come from, against independent implementations."""

import gzip
import importlib
import json

import numpy as np
import pytest
import torch

from PADing.data.clip_models import read_clip_checkpoint
from PADing.data.embedding_sources import (
    clip_embeddings,
    encode_prompts,
    load_text_encoder,
    matrix_embeddings,
    read_names,
    word_embeddings,
)
from PADing.data.embeddings import CLIP_TEMPLATES
from PADing.errors import UserError
from tests.test_checkpoint_files import damage


def _import(name: str):
    """An optional package, or a skip that says why; a torchvision of another torch raises RuntimeError."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name} cannot be imported: {error}")


WORDS = {"hair": [1, 2, 3], "drier": [3, 0, 1], "Berlin": [4, 4, 4], "tv": [0, 1, 0], "straße": [7, 8, 9]}


def _text(header: bool) -> str:
    lines = [f"{word} {' '.join(map(str, vector))}" for word, vector in WORDS.items()]
    lines.insert(1, "at name@domain.com 1 1 1")  # GloVe has words with spaces
    return "\n".join(([f"{len(lines)} 3"] if header else []) + lines) + "\n"


@pytest.fixture(params=["glove.txt", "fasttext.vec", "word2vec.txt.gz", "word2vec.bin", "vectors.kv"])
def word_file(request, tmp_path, monkeypatch):
    """The same words in every format; binary ones are written by gensim."""
    path = tmp_path / request.param
    if path.suffix in (".bin", ".kv"):
        gensim = _import("gensim.models")
        vectors = gensim.KeyedVectors(3)
        vectors.add_vectors(list(WORDS), np.array(list(WORDS.values()), dtype=np.float32))
        if path.suffix == ".kv":
            vectors.save(str(path))
            monkeypatch.setenv("PADING_UNSAFE_PICKLE", "1")
        else:
            vectors.save_word2vec_format(str(path), binary=True)
    else:
        text = _text(header="glove" not in request.param).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_word_vector_files(word_file):
    """Every format gives the same numbers; names of several words get their mean."""
    vectors = word_embeddings(["hair drier", "berlin", "TV", "Straße"], word_file)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[2, 1, 2], [4, 4, 4], [0, 1, 0], [7, 8, 9]]


def test_missing_words_are_reported(word_file, caplog):
    """A class without a vector, or with half of one, must not pass unnoticed."""
    assert word_embeddings(["tv-stand"], word_file).tolist() == [[0, 1, 0]]
    assert "stand (of tv-stand)" in caplog.text
    with pytest.raises(UserError, match="no word of: xyzzy, plugh.*--text"):
        word_embeddings(["tv", "xyzzy", "plugh"], word_file)
    assert word_embeddings(["xyzzy"], word_file, texts={"xyzzy": "tv"}).tolist() == [[0, 1, 0]]


def test_normalised_words(word_file):
    assert np.allclose(np.linalg.norm(word_embeddings(["hair drier", "tv"], word_file, normalize=True), axis=1), 1)


def test_truncated_binary_file(tmp_path):
    gensim = _import("gensim.models")
    vectors = gensim.KeyedVectors(3)
    vectors.add_vectors(list(WORDS), np.array(list(WORDS.values()), dtype=np.float32))
    path = tmp_path / "w.bin"
    vectors.save_word2vec_format(str(path), binary=True)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="end early"):
        word_embeddings(["tv", "nothing"], path)


def test_pickled_word_vectors_are_not_loaded(tmp_path):
    """gensim's own format is a pickle: reading a stranger's file would run the stranger's code."""
    (tmp_path / "ran").mkdir()
    path = tmp_path / "words.kv"
    path.write_bytes(b"cos\nrmdir\n(S'" + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(UserError, match="words.kv are a gensim pickle.*save_word2vec_format"):
        word_embeddings(["tv"], path)
    assert (tmp_path / "ran").exists()


OTHER_KINDS = [b"", b"\x80\x04K\x01.", b"3 -5\na b", b"99 x\n", b"\xff\xfe {", b"\x93NUMPY\x01\x00"]


@pytest.mark.parametrize("content", OTHER_KINDS)
@pytest.mark.parametrize("name", ["w.bin", "w.txt", "w.txt.gz", "m.npy", "m.txt"])
def test_files_of_another_kind_are_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=name):
        word_embeddings(["tv"], path) if name.startswith("w") else matrix_embeddings(["a"], path, ["a"])


@pytest.mark.parametrize(
    "name, content", [("n.json", b'{"a": 1}'), ("n.json", b"[1]"), ("n.json", b"["), ("n.txt", b""), ("n.txt", b"\xff")]
)
def test_files_without_names_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_names(tmp_path / name)


def test_matrix(tmp_path):
    np.save(tmp_path / "m.npy", np.arange(6, dtype=np.float16).reshape(3, 2))
    assert matrix_embeddings(["c", "a"], tmp_path / "m.npy", ["a", "b", "c"]).tolist() == [[4, 5], [0, 1]]
    np.savetxt(tmp_path / "m.txt", [[9, 0, 1], [9, 2, 3]], delimiter=",")
    assert matrix_embeddings(["b"], tmp_path / "m.txt", ["a", "b"]).tolist() == [[1, 3]]
    with pytest.raises(UserError, match="shape \\(3, 2\\), but 2 names"):
        matrix_embeddings(["a"], tmp_path / "m.npy", ["a", "b"])
    with pytest.raises(UserError, match="no class called: d"):
        matrix_embeddings(["d"], tmp_path / "m.npy", ["a", "b", "c"])


def test_prompt_ensemble_by_hand():
    """Unit features, their mean, unit again; synonyms count as prompts of their own."""
    table = {
        "a x": [3.0, 4.0],
        "b x": [0.0, 2.0],
        "a p": [1.0, 0.0],
        "b p": [1.0, 0.0],
        "a q": [0.0, 1.0],
        "b q": [0.0, 1.0],
    }
    vectors = encode_prompts(lambda prompts: torch.tensor([table[p] for p in prompts]), ["x", "p, q"], ["a {}", "b {}"])
    expected_x = np.array([0.3, 0.9]) / np.hypot(0.3, 0.9)
    assert np.allclose(vectors[0], expected_x, atol=1e-6)
    assert np.allclose(vectors[1], [np.sqrt(0.5)] * 2, atol=1e-6)


def test_published_templates():
    """Eight prompts, whose odd spelling is part of the published models."""
    assert len(CLIP_TEMPLATES) == 8 and CLIP_TEMPLATES[2] == "a origami {}." and CLIP_TEMPLATES[7].endswith("scene")


SMALL = {"width": 32, "heads": 2, "layers": 3, "embed_dim": 16}


@pytest.fixture
def small_clip(tmp_path):
    """A CLIP architecture of OpenAI's kind, small, with random weights in a checkpoint."""
    open_clip = _import("open_clip")
    config = {
        "embed_dim": SMALL["embed_dim"],
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": SMALL["width"],
            "heads": SMALL["heads"],
            "layers": SMALL["layers"],
        },
    }
    path = tmp_path / "small-test-clip.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    model = open_clip.create_model("small-test-clip")
    state = {key: torch.randn_like(value) * 0.2 + value if value.is_floating_point() else value
             for key, value in model.state_dict().items()}  # fmt: skip
    checkpoint = tmp_path / "small.pt"
    torch.save(state, checkpoint)
    return checkpoint, state


def _transformers_model(state):
    transformers = _import("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=SMALL["width"],
        intermediate_size=4 * SMALL["width"],
        num_hidden_layers=SMALL["layers"],
        num_attention_heads=SMALL["heads"],
        projection_dim=SMALL["embed_dim"],
        hidden_act="quick_gelu",
        eos_token_id=49407,
        bos_token_id=49406,
    )
    model = transformers.CLIPTextModelWithProjection(config).eval()
    renamed = {
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.final_layer_norm.weight": state["ln_final.weight"],
        "text_model.final_layer_norm.bias": state["ln_final.bias"],
        "text_projection.weight": state["text_projection"].T,
    }
    for layer in range(SMALL["layers"]):
        source, target = f"transformer.resblocks.{layer}.", f"text_model.encoder.layers.{layer}."
        for end in ("weight", "bias"):
            parts = state[f"{source}attn.in_proj_{end}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                renamed[f"{target}self_attn.{name}_proj.{end}"] = part
            renamed[f"{target}self_attn.out_proj.{end}"] = state[f"{source}attn.out_proj.{end}"]
            renamed[f"{target}layer_norm1.{end}"] = state[f"{source}ln_1.{end}"]
            renamed[f"{target}layer_norm2.{end}"] = state[f"{source}ln_2.{end}"]
            renamed[f"{target}mlp.fc1.{end}"] = state[f"{source}mlp.c_fc.{end}"]
            renamed[f"{target}mlp.fc2.{end}"] = state[f"{source}mlp.c_proj.{end}"]
    result = model.load_state_dict(renamed, strict=False)
    assert not result.unexpected_keys and all("position_ids" in key for key in result.missing_keys)
    return model


def test_text_encoder_against_transformers(small_clip):
    """The same weights in an independent text tower give the same class embeddings, ensemble and all."""
    open_clip = _import("open_clip")
    checkpoint, state = small_clip
    reference = _transformers_model(state)
    tokenizer = open_clip.get_tokenizer("small-test-clip")
    names = ["person", "hair drier", "tree-merged"]
    rows = []
    for name in names:
        with torch.no_grad():
            features = reference(input_ids=tokenizer([t.format(name) for t in CLIP_TEMPLATES])).text_embeds.numpy()
        features = features / np.linalg.norm(features, axis=1, keepdims=True)
        mean = features.mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    vectors = clip_embeddings(names, "small-test-clip", checkpoint=checkpoint)
    assert vectors.dtype == torch.float32 and vectors.shape == (3, SMALL["embed_dim"])
    assert np.abs(vectors.numpy() - np.stack(rows)).max() < 2e-6
    half = clip_embeddings(names, "small-test-clip", checkpoint=checkpoint, precision="fp16")
    assert 0 < (half - vectors).abs().max() < 2e-2


def test_checkpoints(small_clip, tmp_path):
    """Text tower alone is enough; OpenAI's TorchScript archives load; another architecture is refused."""
    checkpoint, state = small_clip
    expected = load_text_encoder("small-test-clip", checkpoint=checkpoint)(["a cat"])
    text_only = tmp_path / "text.pt"
    torch.save({key: value for key, value in state.items() if not key.startswith("visual.")}, text_only)
    assert torch.equal(load_text_encoder("small-test-clip", checkpoint=text_only)(["a cat"]), expected)

    archive = tmp_path / "archive.pt"
    torch.jit.save(torch.jit.script(_Holder(state)), archive)
    assert torch.equal(load_text_encoder("small-test-clip", checkpoint=archive)(["a cat"]), expected)

    torch.save({key: value for key, value in state.items() if "ln_final" not in key}, text_only)
    with pytest.raises(UserError, match="2 weights missing"):
        load_text_encoder("small-test-clip", checkpoint=text_only)
    with pytest.raises(UserError, match="does not exist"):
        load_text_encoder("small-test-clip", checkpoint=tmp_path / "none.pt")
    with pytest.raises(UserError, match="no-such-model"):
        load_text_encoder("no-such-model", checkpoint=checkpoint)


class _Holder(torch.nn.Module):
    """Something TorchScript can save, with the tensors of a state dict under their names."""

    def __init__(self, state):
        super().__init__()
        for key, value in state.items():
            *path, name = key.split(".")
            node = self
            for part in path:
                if part not in dict(node.named_children()):
                    node.add_module(part, torch.nn.Module())
                node = getattr(node, part)
            node.register_buffer(name, value)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_damaged_checkpoint_is_refused(tmp_path):
    """torch would load it without a word, and every class would get a wrong vector."""
    path = tmp_path / "clip.pt"
    torch.save({"state_dict": {"weight": torch.randn(300, 300)}}, path)
    damage(path)
    with pytest.raises(UserError, match=r"CLIP checkpoint .*clip\.pt cannot be read: it is damaged"):
        read_clip_checkpoint(str(path))
