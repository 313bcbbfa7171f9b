import pytest
import torch
from detectron2.utils.events import EventStorage

from PADing.engine.recipes import log_losses


def test_single_loss_is_logged_as_the_prefixed_total_only():
    """Published logs of stage 2 hold gan_loss_total_loss and id_loss_total_loss; scripts read those names."""
    with EventStorage(0) as storage:
        log_losses({"generate_loss": torch.tensor(2.0)}, 0.25, "gan_loss_")
        latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest == {"data_time": 0.25, "gan_loss_total_loss": 2.0}


def test_several_losses_are_logged_with_their_sum():
    with EventStorage(0) as storage:
        log_losses({"loss_ce": torch.tensor(2.0), "loss_mask": torch.tensor(0.5)}, 0.0)
        latest = {name: value for name, (value, _) in storage.latest().items()}
    assert latest == {"data_time": 0.0, "total_loss": 2.5, "loss_ce": 2.0, "loss_mask": 0.5}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_loss_stops_the_training_and_names_the_term(value):
    """Hours of training on NaN are worse than an error that says where it began."""
    message = r"iteration 41: loss_mask = (nan|inf) .*loss_ce = 2"
    with EventStorage(41), pytest.raises(FloatingPointError, match=message):
        log_losses({"loss_ce": torch.tensor(2.0), "loss_mask": torch.tensor(value)}, 0.0)
