"""tools/share_model.py: each mistake is one message before anything is written, and a finished folder is kept."""

import pytest
import torch

from PADing.data.embeddings import load_class_embeddings
from PADing.errors import UserError
from PADing.sharing.config_values import _is_machine_path
from PADing.sharing.export import share_model
from tests.small_models import load_tool


@pytest.fixture
def command(capsys):
    tool = load_tool("tools/share_model.py")

    def run(*words):
        status = tool.main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def test_a_folder_is_made_once_and_replaced_on_request(command, training, tmp_path):
    out = tmp_path / "deep" / "model"
    words = ("--training", training, "--output", out, "--license", "cc-by-4.0")
    status, said = command(*words)
    assert status == 0 and f"Wrote {out}" in said
    assert (out.stat().st_mode & 0o777) == (training.parent.stat().st_mode & 0o777) or out.stat().st_mode & 0o055
    (out / "README.md").write_text("mine")
    status, said = command(*words)
    assert status == 2 and "add --overwrite" in said and (out / "README.md").read_text() == "mine"
    assert command(*words, "--overwrite")[0] == 0 and (out / "README.md").read_text() != "mine"
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_other_folders_are_never_replaced(command, training, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    for output in (tmp_path / "mine", training, tmp_path / "mine" / "thesis.tex"):
        status, said = command("--training", training, "--output", output, "--overwrite")
        assert status == 2 and ("is no shared model" in said or "is the folder of the training" in said)
    assert (tmp_path / "mine" / "thesis.tex").exists() and (training / "model_final.pth").exists()


@pytest.mark.parametrize(
    "remove, expected",
    [
        ("results.json", "has no results.json, which the model card needs. Evaluate the model"),
        ("config.yaml", "is not the folder of a training: it has no config.yaml"),
        ("model_final.pth", "has no model_final.pth, so the training did not finish. It has model_0000004.pth"),
    ],
)
def test_what_a_training_lacks_is_named(command, training, tmp_path, remove, expected):
    (training / "model_0000004.pth").touch()
    (training / remove).unlink()
    status, said = command("--training", training, "--output", tmp_path / "out")
    assert status == 2 and expected in said and not (tmp_path / "out").exists()


def test_without_metrics_the_card_says_so(command, training, tmp_path):
    (training / "results.json").unlink()
    assert command("--training", training, "--output", tmp_path / "out", "--without-metrics")[0] == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "was not evaluated" in card and "Nothing was measured" in card
    assert not (tmp_path / "out" / "results.json").exists()


def test_missing_class_embeddings_are_named(command, training, tmp_path):
    words = ("--training", training, "--output", tmp_path / "out")
    status, said = command(*words, "--opts", "MODEL.CLASS_EMBEDDINGS", "gone.npz")
    assert status == 2 and "Class embeddings gone.npz" in said and "Make them with" in said
    assert [path.name for path in tmp_path.iterdir()] == ["training"]


def test_weights_of_another_model_are_refused(command, training, tmp_path):
    weights = tmp_path / "other.pth"
    torch.save({"model": {"x": torch.ones(3)}}, weights)
    for file, expected in ((weights, "holds no segmenter"), (training / "config.yaml", "text file")):
        status, said = command("--training", training, "--output", tmp_path / "out", "--weights", file)
        assert status == 2 and expected in said and not (tmp_path / "out").exists()
    torch.save([1], weights)
    assert command("--training", training, "--output", tmp_path / "out", "--weights", weights)[0] == 2


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--push", "model"], "is not the name of a shared model"),
        (["--push", "a/b@v1"], "leave out the revision"),
        (["--private"], "--private belongs to --push"),
        (["--license", "MIT License"], "Write its short name"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_written(command, training, tmp_path, words, expected):
    status, said = command("--training", training, "--output", tmp_path / "out", *words)
    assert status == 2 and expected in said and not (tmp_path / "out").exists()


def test_a_folder_made_before_is_uploaded_as_it_is(command, shared, monkeypatch):
    sent = []
    monkeypatch.setattr("PADing.sharing.hub._library", lambda: pytest.fail("not before the checks"))
    assert command("--output", shared)[0] == 2
    status, said = command("--output", shared, "--push", "a/b", "--license", "mit")
    assert status == 2 and "--license belong to --training" in said
    status, said = command("--output", shared / "no", "--push", "a/b")
    assert status == 2 and "does not exist" in said
    tool = load_tool("tools/share_model.py")
    monkeypatch.setattr("PADing.sharing.hub.push_folder", lambda *arguments: sent.append(arguments) or "address")
    assert tool.main(["--output", str(shared), "--push", "a/b", "--private"]) == 0
    assert sent == [(shared, "a/b", True, False)]


def test_class_embeddings_are_those_of_the_training_and_name_no_folder(training, tmp_path, vectors):
    out = share_model(training, tmp_path / "out")
    names = ["plain disc", "striped disc"]
    one, other = (load_class_embeddings(path, names) for path in (vectors, out / "class_embeddings.npz"))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "value, is_path",
    [
        ("/home/me/x", True), ("~/x", True), ("C:\\x", True), ("\\\\server\\x", True), ("file:///x", True),
        ("../x", True), ("a/../x", True), ("https://me:secret@host/x", True), ("https://host/x", False),
        ("res2", False), ("a/b", False), ("", False), (3, False), (None, False),
    ],
)  # fmt: skip
def test_paths_of_the_machine_are_known(value, is_path):
    assert _is_machine_path(value) == is_path


def test_classes_without_a_split_file_are_refused(training, tmp_path):
    with pytest.raises(UserError, match="come from no split file"):
        share_model(
            training, tmp_path / "out", opts=["DATASETS.TRAIN", "('nowhere',)", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3]
        )
