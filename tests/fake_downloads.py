"""Miniature official downloads of the evaluation sets: real names, folders and formats, images of 48 x 32 pixels.

Each function fills ``root`` and returns the truth that its annotation means, by image: ``classes`` (class names, ""
where there is none) and ``objects`` (class name, mask, crowd). Tests compare with it.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy.io import savemat

HEIGHT, WIDTH = 32, 48
ADE_THINGS = {"bed": (8, 1), "person": (13, 4), "flag": (150, 100), "television": (90, 58)}  # class id, instance class
ADE_STUFF = {"wall": 1, "sky": 3, "floor": 4, "plant": 18, "shower": 146}
VOC = {"aeroplane": 1, "cat": 8, "diningtable": 11, "tvmonitor": 20}
CONTEXT = {"aeroplane": 2, "bag": 9, "person": 284, "tree": 420, "wood": 458}
CITY = {"road": 7, "sidewalk": 8, "vegetation": 21, "sky": 23, "person": 24, "car": 26, "bicycle": 33}


def names_map() -> np.ndarray:
    return np.full((HEIGHT, WIDTH), "", dtype=object)


def photo(path: Path, seed: int, size=(HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def png(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.save(path)


def ade20k(root: Path, number: int = 3) -> dict[str, SimpleNamespace]:
    folder, truth = root / "ADEChallengeData2016", {}
    for n in range(1, number + 1):
        stem = f"ADE_val_{n:08}"
        photo(folder / "images" / "validation" / f"{stem}.jpg", n)
        classes, values = names_map(), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        stuff = list(ADE_STUFF)[n - 1 : n + 1]
        for rows, name in zip((slice(0, 16), slice(16, 30)), stuff, strict=True):
            classes[rows], values[rows] = name, ADE_STUFF[name]
        rgb, objects = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), []
        for number_, (name, left) in enumerate(
            [("person", 2), ("person", 12), (["bed", "flag", "television"][n % 3], 30)], 1
        ):
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            mask[8:24, left : left + 8] = True
            classes[mask], values[mask] = name, ADE_THINGS[name][0]
            rgb[mask] = (ADE_THINGS[name][1], number_, 0)
            objects.append((name, mask, False))
        png(folder / "annotations" / "validation" / f"{stem}.png", values)
        png(folder / "annotations_instance" / "validation" / f"{stem}.png", rgb)
        truth[f"{stem}.jpg"] = SimpleNamespace(classes=classes, objects=objects)
    return truth


def voc(root: Path, number: int = 3) -> dict[str, SimpleNamespace]:
    folder, truth = root / "VOCdevkit" / "VOC2012", {}
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    stems = [f"2007_{n:06}" for n in range(33, 33 + number)]
    (lists / "val.txt").write_text("\n".join(stems) + "\n")
    photo(folder / "JPEGImages" / "2007_000001.jpg", 99)  # of the training list
    for n, stem in enumerate(stems):
        photo(folder / "JPEGImages" / f"{stem}.jpg", n)
        values, numbers = (np.zeros((HEIGHT, WIDTH), dtype=np.uint8) for _ in range(2))
        classes, objects = names_map(), []
        for number_, (name, left) in enumerate([(list(VOC)[n], 4), (list(VOC)[n + 1], 26)], 1):
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            mask[6:26, left : left + 16] = True
            values[mask], numbers[mask], classes[mask] = VOC[name], number_, name
            objects.append((name, mask, False))
        values[6, :] = numbers[6, :] = 255  # the border
        classes[6, :] = ""
        for _, mask, _ in objects:
            mask[6, :] = False
        png(folder / "SegmentationClass" / f"{stem}.png", values, palette=True)
        png(folder / "SegmentationObject" / f"{stem}.png", numbers, palette=True)
        truth[f"{stem}.jpg"] = SimpleNamespace(classes=classes, objects=objects)
    return truth


def context(root: Path, number: int = 3, names: bool = False) -> dict[str, SimpleNamespace]:
    """``names``: PNGs of the 59 classes in the official order and 59_labels.txt, in place of .mat files."""
    folder, truth = root / "VOCdevkit" / "VOC2010", {}
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    stems = [f"2008_{n:06}" for n in range(1, 1 + number)]
    (lists / "val.txt").write_text("\n".join(stems) + "\n")
    if names:
        (root / "59_labels.txt").write_text("".join(f"{i}: {name}\n" for i, name in enumerate(OFFICIAL_59, 1)))
    for n, stem in enumerate(stems):
        photo(folder / "JPEGImages" / f"{stem}.jpg", n)
        labels, classes = np.full((HEIGHT, WIDTH), 3, dtype=np.uint16), names_map()  # 3: none of the 59
        for k, name in enumerate(list(CONTEXT)[n : n + 3]):
            classes[:, 12 * k : 12 * k + 12], labels[:, 12 * k : 12 * k + 12] = name, CONTEXT[name]
        if names:
            values = np.vectorize(lambda name: OFFICIAL_59.index(name) + 1 if name else 0)(classes).astype(np.uint8)
            png(root / "59_context_labels" / f"{stem}.png", values)
        else:
            (folder / "trainval").mkdir(exist_ok=True)
            savemat(folder / "trainval" / f"{stem}.mat", {"LabelMap": labels})
        truth[f"{stem}.jpg"] = SimpleNamespace(classes=classes, objects=[])
    return truth


def cityscapes(root: Path, number: int = 3) -> dict[str, SimpleNamespace]:
    folder, truth = root / "cityscapes", {}
    for n in range(number):
        city = ("frankfurt", "lindau")[n % 2]
        stem = f"{city}/{city}_{n:06}_000019"
        photo(folder / "leftImg8bit" / "val" / f"{stem}_leftImg8bit.png", n)
        labels = np.full((HEIGHT, WIDTH), 1, dtype=np.uint8)  # ego vehicle, which is ignored
        classes, objects = names_map(), []
        for rows, name in ((slice(0, 10), "sky"), (slice(10, 20), "vegetation"), (slice(20, 30), "road")):
            labels[rows], classes[rows] = CITY[name], name
        numbers = labels.astype(np.uint16)
        things = [("car", 2, 0), ("car", 14, 1), ("person", 26, 0), ("bicycle", 36, None)]
        for name, left, number_ in things:
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            mask[14:26, left : left + 8] = True
            labels[mask], classes[mask] = CITY[name], name
            numbers[mask] = CITY[name] if number_ is None else 1000 * CITY[name] + number_
            objects.append((name, mask, number_ is None))
        trailer = np.zeros((HEIGHT, WIDTH), dtype=bool)
        trailer[0:4, 0:6] = True  # has instances, but is ignored in the evaluation
        labels[trailer], numbers[trailer], classes[trailer] = 30, 30000, ""
        start = folder / "gtFine" / "val" / f"{stem}_gtFine"
        png(start.with_name(f"{start.name}_labelIds.png"), labels)
        png(start.with_name(f"{start.name}_instanceIds.png"), numbers)
        truth[f"{stem}_leftImg8bit.png"] = SimpleNamespace(classes=classes, objects=objects)
    return truth


# 59_labels.txt of the official site: VOC's classes first.
OFFICIAL_59 = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse motorbike person pottedplant sheep sofa "
    "train tvmonitor bag bed bench book building cabinet ceiling cloth computer cup door fence floor flower food grass "
    "ground keyboard light mountain mouse curtain platform sign plate road rock shelves sidewalk sky snow bedclothes "
    "track tree truck wall water window wood"
).split()
DOWNLOADS = {"ade20k": ade20k, "voc": voc, "context": context, "cityscapes": cityscapes}
