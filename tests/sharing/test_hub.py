"""Downloads from the Hub: what arrives is the shared model, and every failure is one message that says what to do."""

import pytest
import torch

from PADing.config import load_config
from PADing.engine.checkpointer import read_weights
from PADing.errors import UserError
from PADing.inference import from_pretrained
from PADing.sharing.hub import Reference, push_folder
from tests.sharing.fake_hub import COMMIT, NAME


@pytest.mark.parametrize("name", [NAME, f"hf://{NAME}", f"hf://{NAME}@v1"])
def test_a_downloaded_model_predicts_as_the_folder_does(hub, image, name):
    downloaded, local = from_pretrained(name)(image), from_pretrained(hub.folder)(image)
    assert torch.equal(downloaded["instances"].scores, local["instances"].scores)
    assert torch.equal(downloaded["instances"].pred_masks, local["instances"].pred_masks)
    # Nothing but what is needed, all of one commit: no code that somebody has put there.
    got = [path for method, path in hub.server.asked if method == "GET" and "/resolve/" in path]
    files = {"model.json", "config.yaml", "split.yaml", "class_embeddings.npz", "model.safetensors"}
    assert {path.rpartition("/")[2] for path in got} == files
    assert all(COMMIT in path for path in got if not path.endswith("model.json"))


def test_a_revision_is_passed_on(hub):
    from_pretrained(NAME, revision="v1")
    assert ("HEAD", f"/{NAME}/resolve/v1/model.json") in hub.server.asked
    with pytest.raises(UserError, match="hf://someone/model@v9 cannot be downloaded: it has no such revision"):
        from_pretrained(NAME, revision="v9")
    with pytest.raises(UserError, match="name two revisions"):
        from_pretrained(f"hf://{NAME}@v1", revision="v9")


def test_weights_and_config_are_taken_by_their_hub_name(hub):
    """As MODEL.WEIGHTS and --config-file name them."""
    weights = read_weights(f"hf://{NAME}")
    assert weights.keys() == read_weights(str(hub.folder)).keys()
    cfg = load_config(f"hf://{NAME}")
    assert cfg.MODEL.META_ARCHITECTURE == "D2Zero" and cfg.MODEL.WEIGHTS.endswith("model.safetensors")


def test_a_second_load_needs_no_server(hub):
    from_pretrained(NAME)
    hub.server.asked.clear()
    hub.server.broken = True
    from_pretrained(NAME)


def test_missing_things_are_named(hub):
    with pytest.raises(UserError, match="hf://someone/other cannot be downloaded: it does not exist, or is private"):
        from_pretrained("someone/other")
    (hub.folder / "model.json").unlink()
    with pytest.raises(UserError, match="it has no model.json, so it is not a model that tools/share_model.py made"):
        from_pretrained(NAME)


def test_a_server_that_is_down_is_one_message(hub, monkeypatch):
    monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    url = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    with pytest.raises(UserError, match="no connection to the Hub, and the cache does not have model.json"):
        from_pretrained(NAME)


def test_a_server_that_fails_is_one_message(hub):
    hub.server.broken = True
    with pytest.raises(UserError, match="hf://someone/model cannot be downloaded"):
        from_pretrained(NAME)


def test_a_torn_download_is_never_loaded(hub, image):
    """The connection breaks in the middle of the weights, each time; later it holds."""
    hub.server.torn["model.safetensors"] = 5000
    with pytest.raises(UserError, match="hf://someone/model@?.* cannot be downloaded"):
        from_pretrained(NAME)
    hub.server.torn.clear()
    assert from_pretrained(NAME)(image)


@pytest.mark.parametrize(
    "text", ["model", "a/b/c", "../b", "a/..", "a b/c", "hf://", "hf://a", "a/b@", "a/b@../x", "a/" + "b" * 200, "é/b"]
)
def test_wrong_names_are_refused_before_any_request(text):
    with pytest.raises(UserError):
        Reference.of(text)
    with pytest.raises(UserError):
        from_pretrained(text)


def test_what_is_uploaded_can_be_loaded_from_the_hub(hub, image, tmp_path, monkeypatch):
    """By the requests that huggingface_hub sends; only the server is ours."""
    monkeypatch.setattr(hub.constants, "HF_HUB_DISABLE_XET", True)  # the Hub's own way for large files
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="does not exist, or is private. Check the name, or log in"):
        push_folder(hub.folder, NAME)
    monkeypatch.setenv("HF_TOKEN", hub.server.token)
    (hub.folder / "secret.txt").write_text("not for others")
    assert push_folder(hub.folder, NAME, private=True) == f"{hub.server.url}/{NAME}"
    assert hub.server.private
    local = {path.name: path.read_bytes() for path in hub.folder.iterdir() if path.name != "secret.txt"}
    assert hub.server.received == local and any(method == "PUT" for method, _ in hub.server.asked)

    with pytest.raises(UserError, match="exists already. Choose another name, or add --overwrite"):
        push_folder(hub.folder, NAME)
    (hub.folder / "README.md").write_text("completed")
    push_folder(hub.folder, NAME, overwrite=True)
    assert hub.server.received == {**local, "README.md": b"completed"}

    hub.server.folder = tmp_path / "served"
    hub.server.folder.mkdir()
    for name, content in hub.server.received.items():
        (hub.server.folder / name).write_bytes(content)
    downloaded, local_model = from_pretrained(NAME)(image), from_pretrained(hub.folder)(image)
    assert torch.equal(downloaded["instances"].scores, local_model["instances"].scores)


class Api:
    """The boundary to the Hub for uploads."""

    existing: tuple = ()

    def __init__(self):
        Api.calls = []

    def repo_exists(self, name):
        return name in self.existing

    def create_repo(self, name, private, exist_ok):
        Api.calls.append(("create", name, private, exist_ok))
        return f"https://hub.example/{name}"

    def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
        Api.calls.append(("upload", repo_id, folder_path, sorted(allow_patterns)))


def test_an_upload_makes_a_repository_and_sends_the_files_of_the_model(shared, monkeypatch):
    library = pytest.importorskip("huggingface_hub", reason="the optional extra hub")
    monkeypatch.setattr(library, "HfApi", Api)
    (shared / "secret.txt").write_text("not for others")
    address = push_folder(shared, NAME, private=True)
    create, upload = Api.calls
    assert create == ("create", NAME, True, False)
    assert upload[:3] == ("upload", NAME, shared) and "secret.txt" not in upload[3]
    assert set(upload[3]) == {path.name for path in shared.iterdir()} - {"secret.txt"}
    assert address.endswith(f"/{NAME}")

    monkeypatch.setattr(Api, "existing", (NAME,))
    with pytest.raises(UserError, match="exists already. Choose another name, or add --overwrite"):
        push_folder(shared, NAME)
    push_folder(shared, NAME, overwrite=True)
    assert Api.calls[0] == ("create", NAME, False, True)


def test_an_upload_that_fails_says_why(shared, monkeypatch):
    library = pytest.importorskip("huggingface_hub", reason="the optional extra hub")

    from huggingface_hub.errors import LocalTokenNotFoundError

    class Refusing(Api):
        def create_repo(self, *args, **kwargs):
            raise LocalTokenNotFoundError("token")

    monkeypatch.setattr(library, "HfApi", Refusing)
    with pytest.raises(UserError, match="cannot be uploaded: you are not logged in: hf auth login"):
        push_folder(shared, NAME)
    with pytest.raises(UserError, match="leave out the revision"):
        push_folder(shared, f"{NAME}@v1")


def test_without_the_library_the_message_says_how_to_get_it(shared, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="need huggingface_hub.*pip install"):
        from_pretrained(NAME)
    from_pretrained(shared)
