"""Names of older checkpoints."""


def insert_pixel_decoder(state_dict: dict, prefix: str) -> None:
    """Rename, in place, a head's keys from the time when it was its own pixel decoder.

    A key of the head that lies under neither ``predictor`` nor ``pixel_decoder`` goes under ``pixel_decoder``. This is
    decided by the key alone: version metadata get lost when a checkpoint is saved again as a plain dict, and a rule
    that trusts them then renames what is already right.
    """
    for key in [k for k in state_dict if k.startswith(prefix)]:
        rest = key[len(prefix) :]
        if not rest.startswith(("predictor.", "pixel_decoder.")):
            state_dict[f"{prefix}pixel_decoder.{rest}"] = state_dict.pop(key)
