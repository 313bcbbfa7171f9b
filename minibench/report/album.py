"""The folder of the report's pictures: small files, written whole, and nothing left of an earlier report."""

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from minibench.report.document import Picture
from PADing.files import replacing

__all__ = ["Album"]

# A chart has few colours, so a palette loses nothing that can be seen and takes half of the space.
PALETTE = 256
QUALITY = 82


class Album:
    """Writes pictures into ``folder`` and knows which ones belong to this report."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def chart(self, name: str, figure: Figure, alt: str, caption: str) -> Picture:
        """Write a chart as PNG."""
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        # An octree keeps rare colours, such as thin lines', which the median cut would merge with their neighbours.
        image = Image.open(drawn).convert("RGB").quantize(PALETTE, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        return self._save(f"{name}.png", image, alt, caption, optimize=True)

    def photo(self, name: str, image: np.ndarray, alt: str, caption: str) -> Picture:
        """Write (H, W, 3) uint8 RGB as JPEG."""
        return self._save(f"{name}.jpg", Image.fromarray(image), alt, caption, quality=QUALITY, optimize=True)

    def clean(self) -> None:
        """Remove pictures of an earlier report."""
        for path in self.folder.iterdir():
            if path.suffix in (".png", ".jpg") and path.name not in self.names:
                path.unlink()

    def _save(self, file: str, image: Image.Image, alt: str, caption: str, **options) -> Picture:
        with replacing(self.folder / file) as temporary:
            image.save(temporary, **options)
        self.names.add(file)
        return Picture(file, alt, caption)
