"""The folder of the report's images: small files, written whole, and nothing left of an earlier report."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.figure import Figure

from minibench.report.document import Image
from PADing.files import replacing

# A chart has few colours, so a palette loses nothing that can be seen and takes half of the space.
PALETTE = 256
QUALITY = 82


class Album:
    """Writes images into ``folder`` and knows which ones belong to this report."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def chart(self, name: str, figure: Figure, alt: str, caption: str) -> Image:
        """Write a chart as PNG."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        # An octree keeps rare colours, such as thin lines', which the median cut would merge with their neighbours.
        method, dither = PIL.Image.Quantize.FASTOCTREE, PIL.Image.Dither.NONE
        image = PIL.Image.open(drawn).convert("RGB").quantize(PALETTE, method, dither=dither)
        return self._save(f"{name}.png", image, alt, caption)

    def photo(self, name: str, pixels: np.ndarray, alt: str, caption: str) -> Image:
        """Write (H, W, 3) uint8 RGB as JPEG."""
        return self._save(f"{name}.jpg", PIL.Image.fromarray(pixels), alt, caption, quality=QUALITY)

    def clean(self) -> None:
        """Remove images of an earlier report."""
        for path in self.folder.iterdir():
            if path.suffix in (".png", ".jpg") and path.name not in self.names:
                path.unlink()

    def _save(self, file: str, image: PIL.Image.Image, alt: str, caption: str, **options: Any) -> Image:
        with replacing(self.folder / file) as temporary:
            image.save(temporary, optimize=True, **options)
        self.names.add(file)
        return Image(file, alt, caption)
