"""Results of all processes, brought together without one message that holds everything."""

from detectron2.utils import comm

__all__ = ["gather_items"]

# Images whose results travel at a time: some megabytes.
CHUNK = 200


def gather_items(items: list, distributed: bool = True) -> list | None:
    """All items of all processes on the main one; None elsewhere. ``items`` of other processes are emptied on the way.

    Every process must call it.
    """
    if not distributed or comm.get_world_size() == 1:
        return items
    rounds = -(-max(comm.all_gather(len(items))) // CHUNK)
    result = []
    for _ in range(rounds):
        chunk, items[:CHUNK] = items[:CHUNK], []
        for part in comm.gather(chunk, dst=0):
            result += part
    return result if comm.is_main_process() else None
