"""Videos on disk; wrong here means that an hour of drawing is lost, or half a file looks like a whole one."""

import numpy as np
import pytest

from PADing.errors import UserError
from PADing.visualization.video import VideoSource, VideoWriter

FRAME = np.full((48, 64, 3), 90, dtype=np.uint8)


def _write(path, frames, error=None):
    with VideoWriter(path, 5.0) as writer:
        for _ in range(frames):
            writer.write(FRAME)
        if error is not None:
            raise error


def test_an_interrupted_video_can_be_watched(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "v.avi", 3, KeyboardInterrupt())
    frames = list(VideoSource(tmp_path / "v.avi"))
    assert len(frames) == 3 and frames[0].shape == FRAME.shape
    assert [p.name for p in tmp_path.iterdir()] == ["v.avi"]


def test_after_an_error_the_old_file_is_there(tmp_path):
    (tmp_path / "v.avi").write_text("old")
    for error, frames in ((ZeroDivisionError(), 2), (UserError("no frame"), 0), (KeyboardInterrupt(), 0)):
        with pytest.raises(type(error)):
            _write(tmp_path / "v.avi", frames, error)
        assert (tmp_path / "v.avi").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_mistakes_are_named(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    for path, said in ((tmp_path / "folder.mp4", "is no file"), (tmp_path / "gone.mp4", "does not exist")):
        with pytest.raises(UserError, match=said):
            VideoSource(path)
    with pytest.raises(UserError, match=".mp4, .mkv"):
        VideoWriter(tmp_path / "v.gif", 5.0)
