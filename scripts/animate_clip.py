"""Draw the moving image of the README: the bundled clip with what the default model makes of it.

diffusion-perception run demo/clip --temporal -o out/clip
python scripts/animate_clip.py out/clip docs/images/demo.gif
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image


MAPS = ("depth", "normals", "semantic")
WIDTH = 230
"""Pixels of one map in the animation."""


def frame(folder: Path, stem: str) -> Image.Image:
    """The input and the maps side by side, each `WIDTH` pixels wide; the input is the first cell of the sheet."""
    with Image.open(folder / f"{stem}_depth.png") as depth, Image.open(folder / f"{stem}.png") as sheet:
        cells = [sheet.convert("RGB").crop((0, 0, *depth.size)), depth.convert("RGB")]
    for name in MAPS[1:]:
        with Image.open(folder / f"{stem}_{name}.png") as cell:
            cells.append(cell.convert("RGB"))
    height = round(cells[1].height * WIDTH / cells[1].width)
    strip = Image.new("RGB", (len(cells) * (WIDTH + 4) - 4, height), "white")
    for column, cell in enumerate(cells):
        strip.paste(cell.resize((WIDTH, height), Image.Resampling.LANCZOS), (column * (WIDTH + 4), 0))
    return strip


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a run of diffusion-perception as a GIF.")
    parser.add_argument("folder", type=Path, help="output folder of `diffusion-perception run`")
    parser.add_argument("output", type=Path, help="the GIF to write")
    parser.add_argument("--every", type=int, default=2, help="use one frame in so many (default: %(default)s)")
    arguments = parser.parse_args()
    stems = sorted(path.stem.removesuffix("_depth") for path in arguments.folder.glob("*_depth.png"))[
        :: arguments.every
    ]
    frames = [frame(arguments.folder, stem).quantize(128, dither=Image.Dither.NONE) for stem in stems]
    frames[0].save(arguments.output, save_all=True, append_images=frames[1:], duration=120, loop=0, optimize=True)


if __name__ == "__main__":
    main()
