"""Tiny samples of each format, written by hand, with the masks that they stand for."""

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (20, 30)  # height, width
# Image -> class -> box (left, top, right, bottom), right and bottom excluded; edges on pixel borders are exact.
BOXES = {
    "train/a.png": {"dog": (2, 3, 12, 10)},
    "train/b.png": {"dog": (0, 0, 30, 5), "big tree": (10, 8, 25, 20)},
    "val/c.png": {"dog": (1, 1, 6, 6), "cat": (15, 10, 28, 19)},
}
CLASSES = ["dog", "big tree", "cat"]


def mask(box: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> np.ndarray:
    left, top, right, bottom = box
    drawn = np.zeros(size, dtype=bool)
    drawn[top:bottom, left:right] = True
    return drawn


def corners(box) -> list[list[float]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def write_image(path: Path, size=SIZE, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (40, 90, 60)).save(path, **options)


def write_images(folder: Path, layout: str = "{role}/{name}") -> None:
    for name in BOXES:
        role, _, rest = name.partition("/")
        write_image(folder / layout.format(role=role, name=rest))


def png_base64(part: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(part.astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def labelme(folder: Path) -> None:
    """A polygon, a mask and a rectangle; paths with backslashes."""
    write_images(folder)
    for name, boxes in BOXES.items():
        shapes = []
        for label, box in boxes.items():
            left, top, right, bottom = box
            if label == "cat":
                part = png_base64(np.ones((bottom - top, right - left), bool))
                shape = {"shape_type": "mask", "points": [[left, top], [right - 1, bottom - 1]], "mask": part}
            elif label == "big tree":
                shape = {"shape_type": "rectangle", "points": [[right, bottom], [left, top]]}
            else:
                shape = {"shape_type": "polygon", "points": corners(box)}
            shapes.append({"label": label, "group_id": None, **shape})
        path = folder / name
        content = {"imagePath": f"..\\{path.parent.name}\\{path.name}", "imageHeight": SIZE[0], "imageWidth": SIZE[1]}
        path.with_suffix(".json").write_text(json.dumps({**content, "shapes": shapes, "imageData": None}))


def cvat(folder: Path) -> None:
    write_images(folder)
    images = []
    for number, (name, boxes) in enumerate(BOXES.items()):
        shapes = []
        for label, (left, top, right, bottom) in boxes.items():
            width, height = right - left, bottom - top
            if label == "cat":
                shapes.append(
                    f'<mask label="cat" rle="0, {width * height}" left="{left}" top="{top}" width="{width}" '
                    f'height="{height}" z_order="0"/>'
                )
            elif label == "big tree":
                shapes.append(f'<box label="big tree" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}"/>')
            else:
                points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners((left, top, right, bottom)))
                shapes.append(f'<polygon label="dog" points="{points}"><attribute name="a">b</attribute></polygon>')
        size = f'width="{SIZE[1]}" height="{SIZE[0]}"'
        images.append(f'<image id="{number}" name="{name}" {size}>{"".join(shapes)}</image>')
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task/></meta>'
    (folder / "annotations.xml").write_text(f"{head}{''.join(images)}</annotations>")


def voc(folder: Path) -> None:
    """Instances 1, 2 of each image with classes 1.. in the order of CLASSES, and a border of 255."""
    write_images(folder, "JPEGImages/{name}")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for role in ("train", "val"):
        names = [Path(name).stem for name in BOXES if name.startswith(role)]
        (lists / f"{role}.txt").write_text("\n".join(names) + "\n")
    for kind in ("SegmentationClass", "SegmentationObject"):
        (folder / kind).mkdir()
        for name, boxes in BOXES.items():
            drawn = np.zeros(SIZE, np.uint8)
            for number, (label, box) in enumerate(boxes.items(), 1):
                drawn[mask(box)] = number if kind == "SegmentationObject" else CLASSES.index(label) + 1
            drawn[-1, 0] = 255
            image = Image.fromarray(drawn)
            image.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
            image.save(folder / kind / Path(name).name)


def yolo(folder: Path) -> None:
    write_images(folder, "images/{role}/{name}")
    (folder / "data.yaml").write_text(
        "path: ../datasets/x\ntrain: images/train\nnames: {0: dog, 1: big tree, 2: cat}\n"
    )
    for name, boxes in BOXES.items():
        lines = []
        for label, box in boxes.items():
            values = [f"{x / SIZE[1]!r} {y / SIZE[0]!r}" for x, y in corners(box)]
            lines.append(f"{CLASSES.index(label)} {' '.join(values)}")
        path = folder / "labels" / Path(name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))


def counts(drawn: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: runs of 0 and 1 in turn, column by column, counted one pixel at a time."""
    runs, value = [0], False
    for pixel in drawn.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def coco(folder: Path) -> None:
    """Uncompressed RLE, compressed RLE and polygons; no ids, areas, boxes or iscrowd."""
    import pycocotools.mask as mask_util

    write_images(folder)
    for role in ("train", "val"):
        images, annotations = [], []
        for number, (name, boxes) in enumerate(BOXES.items()):
            if not name.startswith(role):
                continue
            images.append({"id": number, "file_name": Path(name).name, "height": SIZE[0], "width": SIZE[1]})
            for label, box in boxes.items():
                if label == "cat":
                    shape: object = {"size": list(SIZE), "counts": counts(mask(box))}
                elif label == "big tree":
                    rle = mask_util.encode(np.asfortranarray(mask(box), np.uint8))
                    shape = {"size": list(SIZE), "counts": rle["counts"].decode()}
                else:
                    shape = [[value for point in corners(box) for value in point]]
                entry = {"image_id": number, "category_id": 10 + CLASSES.index(label), "segmentation": shape}
                annotations.append(entry)
        categories = [{"id": 10 + i, "name": name} for i, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / role / "_annotations.coco.json").write_text(json.dumps(content))


def label_png(folder: Path) -> None:
    """Values 1, 2, 3 in the order of CLASSES, 0 elsewhere."""
    write_images(folder, "images/{role}/{name}")
    for name, boxes in BOXES.items():
        drawn = np.zeros(SIZE, np.uint8)
        for label, box in boxes.items():
            drawn[mask(box)] = CLASSES.index(label) + 1
        path = folder / "maps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn).save(path)
