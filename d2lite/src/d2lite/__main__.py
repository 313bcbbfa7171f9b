"""``python -m d2lite``: shows which package provides ``detectron2`` and ``panopticapi``, from where, and why."""

import sys

from d2lite.provider import NAMES, describe


def main() -> int:
    """Print the report; returns 1 if a name has no provider, else 0."""
    missing = False
    for name in NAMES:
        found = describe(name)
        missing |= found["provider"] == "none"
        print(f"{name}: {found['provider']}\n  from {found['location']}\n  because {found['why']}")
    return int(missing)


if __name__ == "__main__":
    sys.exit(main())
