"""Compares the preparation of JPEG files with torchvision (libjpeg-turbo), one thread each, in turns.

usage: throughput.py [--images 400] [--rounds 7] [--keep FOLDER]

Needs `pip install torch torchvision pillow numpy`. Builds and runs `throughput.rs` beside it. The files are made: noise of all sizes as
photographs have it (each octave as strong as the next), 500 pixels wide, JPEG quality 90, 4:2:0, about 100 kB; and the same at 32×32.
torchvision reads, decodes to RGB, cuts the centre square out and resizes it with antialiasing; this program does that too, and hashes,
measures and packs the result. Rates are images per second of processor time, medians over the rounds; ratios are this program's over
torchvision's, of the rounds one by one.
"""

import argparse
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2 import functional as F

ROOT = Path(__file__).resolve().parents[3]


def photograph(random, width, height):
    """RGB noise whose octaves are equally strong, with little colour."""
    picture = np.zeros((height, width, 3))
    size = 4
    while size < 2 * max(width, height):
        shape = (min(size * height // width + 1, height), min(size, width))
        gray = random.normal(size=shape)
        for channel in range(3):
            plane = (gray + 0.3 * random.normal(size=shape)).astype(np.float32)
            octave = Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)
            picture[..., channel] += np.asarray(octave) * (1 if size < 64 else 0.5)
        size *= 2
    return Image.fromarray(np.clip(128 + 32 * picture, 0, 255).astype(np.uint8))


def write(folder, images):
    random = np.random.default_rng(1)
    for n in range(images):
        width, height = [(500, 375), (375, 500), (500, 333), (500, 500)][n % 4]
        large = photograph(random, width, height)
        small = large.resize((32, 32), Image.Resampling.BOX)
        for kind, picture in [("large", large), ("small", small)]:
            path = folder / kind / f"class{n % 2}" / f"{n}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=90, subsampling="4:2:0")
    # Many small ones: the same again under other names.
    for path in sorted((folder / "small").rglob("*.jpg")):
        for copy in range(1, 10):
            path.with_name(f"{path.stem}_{copy}.jpg").write_bytes(path.read_bytes())


def torchvision_rate(files, side):
    start = time.thread_time()
    for file in files:
        image = decode_jpeg(read_file(file), mode=ImageReadMode.RGB)
        if side:
            image = F.resize(F.center_crop(image, [min(image.shape[1:])] * 2), [side, side], antialias=True)
        assert image.shape[0] == 3
    return len(files) / (time.thread_time() - start)


def own_rate(program, folder, side):
    words = [program, "prepare", folder] + ([str(side)] if side else [])
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"([\d.]+) of processor time", text)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keep", type=Path, help="folder for the files, which are made if it is empty")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    build = ["cargo", "build", "--quiet", "-p", "dataset", "--example", "throughput"]
    subprocess.run(build, check=True, cwd=ROOT)
    program = ROOT / "target" / "debug" / "examples" / "throughput"
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        if not (folder / "large").exists():
            write(folder, arguments.images)
        for kind, side in [("large", 256), ("small", None)]:
            files = sorted(str(path) for path in (folder / kind).rglob("*.jpg"))
            size = sum(Path(file).stat().st_size for file in files) / len(files)
            rounds = [(own_rate(program, folder / kind, side), torchvision_rate(files, side)) for _ in range(arguments.rounds + 1)]
            # The first round warms the disk's cache and both programs up.
            own, other = (statistics.median(rates) for rates in zip(*rounds[1:]))
            ratios = sorted(own / other for own, other in rounds[1:])
            print(
                f"{len(files)} {kind} files of {size / 1000:.1f} kB, {'to ' + str(side) if side else 'as they are'}: "
                f"pipeline {own:.0f}, torchvision {other:.0f} images/s, "
                f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
