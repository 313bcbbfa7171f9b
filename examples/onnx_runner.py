#!/usr/bin/env python3
"""Segment images with an ONNX file of tools/export_model.py. Needs only numpy, pillow and onnxruntime.

    pip install numpy pillow onnxruntime
    python examples/onnx_runner.py --model model.onnx --input street.jpg more/*.jpg --output segmented

For each image it writes a drawing NAME.png and NAME.json; panoptic results also as NAME_panoptic.png, whose color
R + 256 G + 65536 B is the segment's id in the JSON file, and semantic results as NAME_semantic.png, whose gray value
(16-bit if there are many classes) is the class id. Masks of instances are in the JSON file, in COCO's uncompressed RLE.
The file of the model may have any of the outputs; with raw ones, results are computed here at the image's own size.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

KEY, FORMAT = "pading", 1  # of the description
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PIXELS_AT_ONCE = 2**22  # of all masks of a strip, to bound the memory
MAGENTA = (255, 0, 255)  # outlines of unseen classes


class Mistake(Exception):
    """A mistake that the user can fix."""


try:
    import numpy as np
    import onnxruntime
    from PIL import Image, ImageDraw, ImageOps
except ImportError as missing:
    sys.exit(f"error: {missing}. Install what is needed: pip install numpy pillow onnxruntime")


class Model:
    """An exported model: ``Model(path)(image)``, where image is (H, W, 3) uint8 RGB."""

    def __init__(self, path):
        """Open the file; Mistake if it is none of ours."""
        if not os.path.isfile(path):
            raise Mistake(f"Model {path} {'is no file' if os.path.exists(path) else 'does not exist'}.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # no warnings
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has an exception for each of its states
            raise Mistake(f"Model {path} cannot be read as ONNX: {str(error).splitlines()[0][:200]}") from error
        try:
            self.about = json.loads(self.session.get_modelmeta().custom_metadata_map.get(KEY, ""))
            if self.about["format"] != FORMAT:
                raise Mistake(f"Model {path} has the format {self.about['format']!r}; this runner reads {FORMAT}.")
            self.input, self.results = self.about["input"], self.about["results"]
            self.classes = {c["label"]: c for c in self.about["classes"]}
            self.outputs = self.about["outputs"]
        except (ValueError, KeyError, TypeError) as error:
            raise Mistake(f"Model {path} does not say how to use it. Make it with tools/export_model.py.") from error

    def __call__(self, image):
        """Results by kind: ``panoptic`` (map, segments), ``instance`` (list), ``semantic`` (map of labels)."""
        size, names = image.shape[:2], [output.name for output in self.session.get_outputs()]
        found = self.session.run(None, {self.input["name"]: self.prepare(image)[None]})
        found = {name: value[0] for name, value in zip(names, found, strict=True)}
        if "raw" in self.outputs:
            return self.from_logits(found["class_logits"], found["mask_logits"], self.input_size(size), size)
        return self.from_results(found, size)

    def input_size(self, size):
        """Height and width at which an image of ``size`` is computed."""
        short, longest = self.input["resize"]["shorter_side"], self.input["resize"]["longer_side"]
        if not short:
            return size
        smaller, larger = sorted(size)
        new = [float(short), short / smaller * larger]
        if max(new) > longest:
            new = [side * longest / max(new) for side in new]
        sides = [max(1, int(side + 0.5)) for side in new]
        return tuple(sides if size[0] < size[1] else sides[::-1])

    def prepare(self, image):
        """(H, W, 3) uint8 RGB to (3, h, w) float32, resized, channels in the model's order; it normalises itself."""
        height, width = self.input_size(image.shape[:2])
        if max(height, width) > (greatest := self.input["sides"][1]):
            raise Mistake(f"The image would be {height} x {width} pixels, more than {greatest}. Make it smaller.")
        ordered = np.ascontiguousarray(image[:, :, ::-1] if self.input["channels"] == "BGR" else image)
        if (height, width) != image.shape[:2]:
            ordered = np.asarray(Image.fromarray(ordered).resize((width, height), Image.Resampling.BILINEAR))
        return ordered.transpose(2, 0, 1).astype(np.float32)

    def from_logits(self, class_logits, mask_logits, used, size):
        """All results that the model computes, at ``size``; ``used`` is the size of the resized image."""
        multiple = self.input["padded_to_multiple_of"]
        padded = [-(-side // multiple) * multiple for side in used]
        strips = Strips(mask_logits, padded, used, size)
        kinds = {"semantic": self.semantic, "panoptic": self.panoptic, "instance": self.instance}
        return {kind: compute(class_logits, strips) for kind, compute in kinds.items() if self.results[kind]}

    def semantic(self, class_logits, strips):
        """The label of each pixel (H, W)."""
        weights = softmax(class_logits)[:, :-1].T
        labels = np.empty(strips.size, np.int32)
        for rows, masks in strips:
            scores = weights @ sigmoid(masks).reshape(len(masks), -1)
            labels[rows] = scores.argmax(0).reshape(masks.shape[1:])
        return labels

    def panoptic(self, class_logits, strips):
        """Map of segment ids (H, W), and segments ``{"id", "label"}``: each pixel belongs to one query at most."""
        prob = softmax(class_logits)
        scores, labels = prob.max(1), prob.argmax(1)
        keep = np.flatnonzero((labels != prob.shape[1] - 1) & (scores > self.results["object_mask_threshold"]))
        owner_map = np.zeros(strips.size, np.int32)
        areas = np.zeros((3, len(keep)), np.int64)  # owned pixels, pixels of the mask, both
        for rows, masks in strips if len(keep) else ():
            soft = sigmoid(masks[keep])
            owner = (scores[keep, None, None] * soft).argmax(0)
            inside = soft >= 0.5
            both = np.take_along_axis(inside, owner[None], 0)[0]
            areas[0] += np.bincount(owner.ravel(), minlength=len(keep))
            areas[1] += inside.sum((1, 2))
            areas[2] += np.bincount(owner[both], minlength=len(keep))
            owner_map[rows] = np.where(both, owner + 1, 0)
        ids, segments, stuff = [0], [], {}
        things = set(self.results["things"])
        for label, (owned, original, left) in zip(labels[keep].tolist(), areas.T.tolist(), strict=True):
            if not min(owned, original, left) or owned / original < self.results["overlap_threshold"]:
                ids.append(0)
            elif label in stuff:
                ids.append(stuff[label])
            else:
                segments.append({"id": len(segments) + 1, "label": label})
                ids.append(len(segments))
                if label not in things:
                    stuff[label] = len(segments)
        return np.array(ids, np.int32)[owner_map], segments

    def instance(self, class_logits, strips):
        """Instances ``{"label", "score", "box", "mask"}`` by falling score; masks are (H, W) bool."""
        rule = self.results["instance_rule"]
        logits = class_logits * np.float32(rule["scale"])
        if rule["columns"] is not None:
            logits = logits[:, [*rule["columns"], -1]]
        prob = softmax(logits)[:, :-1]
        pairs = []
        for group in rule["groups"]:
            labels = np.arange(prob.shape[1]) if group["labels"] is None else np.array(group["labels"], int)
            some = prob[:, labels]
            for index in np.argsort(-some, axis=None, kind="stable")[: group["number"]]:
                query, place = divmod(int(index), some.shape[1])
                pairs.append((float(some[query, place]), query, int(labels[place])))
        if rule["kept"] is not None:
            pairs = [pair for pair in pairs if pair[2] in set(rule["kept"])]
        queries = sorted({query for _, query, _ in pairs})
        masks = np.zeros((len(queries), *strips.size), bool)
        total, area = np.zeros(len(queries)), np.zeros(len(queries))
        for rows, values in strips if queries else ():
            values = values[queries]
            masks[:, rows] = values > 0
            total += (sigmoid(values) * (values > 0)).sum((1, 2))
            area += (values > 0).sum((1, 2))
        found = []
        for prob, query, label in pairs:
            at = queries.index(query)
            box = box_of(masks[at]) if self.results["boxes_from_masks"] else [0.0] * 4
            score = prob * float(total[at] / (area[at] + 1e-6))
            found.append({"label": label, "score": score, "box": box, "mask": masks[at]})
        return sorted(found, key=lambda instance: -instance["score"])

    def from_results(self, found, size):
        """The file's results, enlarged to ``size`` without interpolation."""
        result = {}
        if "semantic_labels" in found or "semantic_scores" in found:
            labels = found.get("semantic_labels")
            result["semantic"] = enlarged(found["semantic_scores"].argmax(0) if labels is None else labels, size)
        if "panoptic_map" in found:
            labels = found["panoptic_labels"].tolist()
            segments = [{"id": i, "label": label} for i, label in enumerate(labels, 1) if label >= 0]
            result["panoptic"] = enlarged(found["panoptic_map"], size), segments
        if "instance_scores" in found:
            names = ("labels", "scores", "boxes", "masks")
            result["instance"] = []
            for label, score, box, mask in zip(*(found[f"instance_{name}"] for name in names), strict=True):
                if label >= 0:
                    box = (box * ([size[1] / mask.shape[1], size[0] / mask.shape[0]] * 2)).tolist()
                    one = {"label": int(label), "score": float(score), "box": box, "mask": enlarged(mask, size)}
                    result["instance"].append(one)
        return result


class Strips:
    """Mask logits (Q, h, w), resized to the padded input, cropped to the used part, and resized to ``size``.

    Iterating gives slices of rows and these rows of all masks (Q, rows, W): all at once takes too much memory.
    """

    def __init__(self, logits, padded, used, size):
        self.logits, self.size = logits.astype(np.float32), tuple(size)
        # Two linear maps for each axis: input to the padded size (and cropped), then to the result.
        self.rows, self.columns = (
            (linear(logits.shape[1 + axis], padded[axis])[: used[axis]], linear(used[axis], size[axis]))
            for axis in (0, 1)
        )

    def __iter__(self):
        right = self.columns[0].T  # (w, used width)
        step = max(1, PIXELS_AT_ONCE // (len(self.logits) * self.size[1]))
        for start in range(0, self.size[0], step):
            stop = min(self.size[0], start + step)
            rows = self.rows[1][start:stop]
            needed = np.flatnonzero(rows.any(0))
            first = self.rows[0][needed[0] : needed[-1] + 1]
            wide = (first @ self.logits) @ right
            yield slice(start, stop), (rows[:, needed[0] : needed[-1] + 1] @ wide) @ self.columns[1].T


def linear(old, new):
    """The matrix (new, old) of linear interpolation from ``old`` to ``new`` pixels, which keeps the edges in place."""
    place = np.maximum((np.arange(new, dtype=np.float32) + 0.5) * np.float32(old / new) - 0.5, 0)
    low = np.minimum(place.astype(int), old - 1)
    matrix = np.zeros((new, old), np.float32)
    matrix[np.arange(new), low] = 1 - (place - low)
    matrix[np.arange(new), np.minimum(low + 1, old - 1)] += place - low  # the last pixel has no neighbour
    return matrix


def softmax(logits):
    """Over the last axis; -inf gives 0."""
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def sigmoid(logits):
    """Of float32 logits."""
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def enlarged(values, size):
    """A map (h, w) at another size, by the nearest pixel."""
    rows, columns = ((np.arange(new) + 0.5) * old / new for old, new in zip(values.shape, size, strict=True))
    return values[rows.astype(int)[:, None], columns.astype(int)]


def box_of(mask):
    """x0, y0, x1, y1 of a mask, x1 and y1 one past the last pixel; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0.0] * 4
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def rle_of(mask):
    """COCO's uncompressed run lengths, column by column, which begin with zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat.size and flat[0] else runs}


def read_image(path):
    """(H, W, 3) uint8 RGB, upright; Mistake if the file is no image of 8 bits."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise Mistake(f"Image {path} has pixels of mode {image.mode}. Save it with 8 bits.")
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise Mistake(f"Image {path} cannot be read: {error}.") from error


def find_images(inputs):
    """The files of ``inputs``; folders stand for the images in them."""
    found = []
    for item in map(Path, inputs):
        here = sorted(p for p in item.iterdir() if p.suffix.lower() in SUFFIXES) if item.is_dir() else [item]
        if not here:
            raise Mistake(f"Folder {item} has no images.")
        found += here
    if len({path.stem for path in found}) < len(found):
        raise Mistake("Several images have the same name. Run them with different --output.")
    return found


def put(path, write):
    """Call ``write`` with a temporary file beside ``path`` and rename it, so a file is there only when complete."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        write(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        if os.path.exists(name):
            os.unlink(name)


def write_results(model, image, result, folder, stem, threshold):
    """Write drawing, maps and JSON of one image; returns a line about it."""
    content = {"image": stem, "height": image.shape[0], "width": image.shape[1]}
    about = model.classes
    if "panoptic" in result:
        ids, segments = result["panoptic"]
        described = [{**one, **named(about, one["label"]), "area": int((ids == one["id"]).sum())} for one in segments]
        content["segments"] = described
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        put(folder / f"{stem}_panoptic.png", Image.fromarray(colors).save)
    if "semantic" in result:
        content["semantic"] = [named(about, int(label)) for label in np.unique(result["semantic"])]
        ids = np.array([about.get(i, {}).get("id", 0) for i in range(max(about) + 1)])
        map_of_ids = ids[result["semantic"]].astype(np.uint8 if ids.max() < 256 else np.uint16)
        put(folder / f"{stem}_semantic.png", Image.fromarray(map_of_ids).save)
    if "instance" in result:
        content["instances"] = [
            {**named(about, i["label"]), "score": i["score"], "box": i["box"], "mask": rle_of(i["mask"])}
            for i in result["instance"] if i["score"] >= threshold
        ]  # fmt: skip
    put(folder / f"{stem}.json", lambda name: Path(name).write_text(json.dumps(content), encoding="utf-8"))
    put(folder / f"{stem}.png", drawing(model, image, result, threshold).save)
    return ", ".join(f"{len(content[key])} {key}" for key in ("segments", "instances", "semantic") if key in content)


def named(classes, label):
    """Name and ids of a label."""
    known = classes.get(label, {"name": f"class {label}", "id": None, "unseen": False})
    return {"class": known["name"], "class_id": known["id"], "unseen": known["unseen"], "label": label}


def drawing(model, image, result, threshold):
    """The image with its most complete result: colored regions with names; unseen classes have magenta outlines."""
    regions = []
    if "panoptic" in result:
        ids, segments = result["panoptic"]
        regions = [(ids == segment["id"], segment["label"], "") for segment in segments]
    elif "instance" in result:
        best = [i for i in result["instance"] if i["score"] >= threshold]
        regions = [(i["mask"], i["label"], f" {i['score']:.2f}") for i in reversed(best)]
    elif "semantic" in result:
        regions = [(result["semantic"] == label, int(label), "") for label in np.unique(result["semantic"])]
    canvas, marks = image.astype(np.float32), []
    for place, (mask, label, note) in enumerate(regions):
        if not mask.any():
            continue
        about = model.classes.get(label, {})
        color = about.get("color") or [(place * 67 + 40) % 256, (place * 151 + 90) % 256, (place * 29 + 160) % 256]
        canvas[mask] = 0.5 * canvas[mask] + 0.5 * np.array(color, np.float32)
        framed = np.pad(mask, 1, mode="edge")
        inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
        canvas[mask & ~inner] = MAGENTA if about.get("unseen") else color
        rows, columns = np.nonzero(mask)
        at = int((np.abs(rows - rows.mean()) + np.abs(columns - columns.mean())).argmin())
        marks.append((int(columns[at]), int(rows[at]), named(model.classes, label)["class"] + note))
    picture = Image.fromarray(canvas.round().astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for x, y, text in marks:
        box = pen.textbbox((x, y), text, anchor="mm")
        pen.rectangle([box[0] - 2, box[1] - 1, box[2] + 2, box[3] + 1], fill=(0, 0, 0))
        pen.text((x, y), text, fill=(255, 255, 255), anchor="mm")
    return picture


def main(argv=None):
    """Run the command; returns the exit status: 0, or 2 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="FILE", help="ONNX file of tools/export_model.py")
    parser.add_argument("--input", nargs="+", required=True, metavar="IMAGE", help="images, or folders of images")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for the results")
    parser.add_argument("--score-threshold", type=float, default=0.3, help="least score of instances (0.3)")
    args = parser.parse_args(argv)
    failed = 0
    try:
        if not 0 <= args.score_threshold <= 1:
            raise Mistake(f"--score-threshold is {args.score_threshold}, but must be a number from 0 to 1.")
        images = find_images(args.input)
        if {path.resolve().parent for path in images} & {args.output.resolve()}:
            raise Mistake(f"--output {args.output} is a folder of the images, which might be replaced. Choose another.")
        model = Model(args.model)
        args.output.mkdir(parents=True, exist_ok=True)
        for path in images:
            try:
                image = read_image(path)
                result = model(image)
            except Mistake as error:
                print(f"skipped: {error}", file=sys.stderr)
                failed += 1
                continue
            print(f"{path}: {write_results(model, image, result, args.output, path.stem, args.score_threshold)}")
        if failed:
            raise Mistake(f"{failed} of {len(images)} images were skipped; they are listed above.")
    except (Mistake, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
