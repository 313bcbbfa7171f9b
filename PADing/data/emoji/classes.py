"""Which emoji show which COCO class. Every thing of the 48/17 protocol is here, or left out with a reason.

Only emoji that show the class alone are taken: one that shows a person on a surfboard is no picture of a surfboard.
"""

__all__ = ["DISTRACTORS", "EMOJI", "LEFT_OUT", "sequences"]

_SKINS = ("", "\U0001f3fb", "\U0001f3fc", "\U0001f3fd", "\U0001f3fe", "\U0001f3ff")
_PEOPLE = tuple(person + skin for person in "🧍🚶🏃💃🕺" for skin in _SKINS)

# Variants of a class are drawn equally often. Several characters are one emoji of several code points.
EMOJI: dict[str, tuple[str, ...]] = {
    # Seen in the 48/17 protocol.
    "person": _PEOPLE,
    "bicycle": ("🚲",),
    "car": tuple("🚗🚙🚘"),
    "motorcycle": tuple("🏍🛵"),
    "truck": tuple("🚚🚛🛻"),
    "boat": tuple("⛵🚤🛶🛥🚢"),
    "bird": tuple("🐦🦜🦆🦅🦉🐧🦢🦩🐤"),
    "horse": tuple("🐎🐴"),
    "sheep": tuple("🐑🐏"),
    "zebra": ("🦓",),
    "giraffe": ("🦒",),
    "backpack": ("🎒",),
    "handbag": tuple("👜👛👝"),
    "kite": ("🪁",),
    "bottle": tuple("🍾🍼🧴"),
    "spoon": ("🥄",),
    "bowl": tuple("🥣🍚🍜🥗"),
    "banana": ("🍌",),
    "apple": tuple("🍎🍏"),
    "orange": ("🍊",),
    "broccoli": ("🥦",),
    "carrot": ("🥕",),
    "pizza": ("🍕",),
    "donut": ("🍩",),
    "chair": tuple("🪑💺"),
    "bed": ("🛏",),
    "tv": tuple("📺🖥"),
    "laptop": ("💻",),
    "book": tuple("📕📗📘📙📖📔"),
    "clock": tuple("🕰⏰🕐🕓🕗🕙"),
    "vase": tuple("🏺⚱"),
    "toothbrush": ("🪥",),
    "train": tuple("🚆🚂🚄🚅🚊🚈"),
    "bear": ("🐻", "🐻\u200d❄"),
    "suitcase": ("🧳",),
    "frisbee": ("🥏",),
    "sandwich": ("🥪",),
    "toilet": ("🚽",),
    "mouse": ("🖱",),
    # Unseen.
    "bus": tuple("🚌🚍🚎"),
    "dog": ("🐕", "🐩", "🐶", "🦮", "🐕\u200d🦺"),
    "cow": tuple("🐄🐮"),
    "elephant": ("🐘",),
    "umbrella": tuple("☂🌂"),
    "skateboard": ("🛹",),
    "cup": tuple("☕🍵🥤"),
    "knife": ("🔪",),
    "cake": tuple("🎂🍰"),
    "couch": ("🛋",),
    "keyboard": ("⌨",),
    "scissors": ("✂",),
    "airplane": tuple("✈🛩"),
    "cat": ("🐈", "🐈\u200d⬛", "🐱"),
}

LEFT_OUT: dict[str, str] = {
    "bench": "no emoji",
    "skis": "the emoji shows a boot and snow, too",
    "surfboard": "the emoji shows a person and a wave, too",
    "remote": "no emoji",
    "microwave": "no emoji",
    "oven": "no emoji",
    "refrigerator": "no emoji",
    "fork": "the emoji shows a knife, too",
    "toaster": "no emoji",
    "tie": "the emoji shows a shirt, too",
    "sink": "no emoji",
    "snowboard": "the emoji shows a person and snow, too",
}

# Objects of no class above, and like none. Some are COCO classes that the protocol counts as neither seen nor unseen.
DISTRACTORS = tuple("🌵🎃🎩👑💎🔑🔨🪓⚓🎈🎁🧲🔔🗿🍄🍇🍉🍓🐙🦀🐌🦋🐢🐍🚀🎸🎺🥁🚦🛑⚽🎾🍷🌭📱🪴👟🧤⛄🪐")


def sequences() -> list[str]:
    """All emoji that scenes need, each once, sorted."""
    return sorted({*DISTRACTORS, *(emoji for variants in EMOJI.values() for emoji in variants)})
