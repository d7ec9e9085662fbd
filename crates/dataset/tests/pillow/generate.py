"""Writes the pictures beside this file, for the tests of decoding: JPEG files, and as PNG what Pillow (libjpeg-turbo) decodes them to.

usage: generate.py

Needs `pip install pillow numpy`.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).parent


def picture(width, height):
    """Smooth shapes of all colours, and some noise."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(9 * x + 3 * y), np.cos(7 * y - 2 * x), np.sin(11 * x * y + 1)]
    noise = np.random.default_rng(1).normal(size=(height, width, 1)) * 0.1
    return Image.fromarray(np.clip(128 + 90 * (np.stack(waves, -1) + noise), 0, 255).astype(np.uint8))


def main():
    for name, kind in [("420", "4:2:0"), ("444", "4:4:4")]:
        picture(67, 45).save(HERE / f"{name}.jpg", quality=90, subsampling=kind)
    picture(61, 93).save(HERE / "restarts.jpg", quality=85, subsampling="4:2:0", restart_marker_blocks=3)
    picture(51, 40).convert("L").save(HERE / "gray.jpg", quality=90)
    picture(51, 40).save(HERE / "progressive.jpg", quality=80, progressive=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(70, 41).save(HERE / "turned.jpg", quality=92, subsampling="4:2:0", exif=exif)
    for path in HERE.glob("*.jpg"):
        ImageOps.exif_transpose(Image.open(path)).save(path.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
