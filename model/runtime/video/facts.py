"""What a container says of a recording beside its pictures: when, where and with what it was taken."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Stream

from model.runtime.captured import Captured, captured_in_tags
from model.runtime.places import Place, parse_place

MOST_CAMERA_CHARACTERS = 200
MOST_CODEC_CHARACTERS = 64
_PLACE_TAGS = ("com.apple.quicktime.location.iso6709", "location", "location-eng")
_MAKE_TAGS = ("com.apple.quicktime.make", "com.android.manufacturer", "make")
_MODEL_TAGS = ("com.apple.quicktime.model", "com.android.model", "model")


@dataclass(frozen=True)
class VideoFacts:
    """What a file says of its recording.

    Attributes:
        captured: when it was taken, by its tags; None: they do not say.
        place: where; None: they do not say.
        camera: make and model; None: they do not say.
        audio_codec: short name, such as "aac"; None: it has no sound.
    """

    captured: Captured | None = None
    place: Place | None = None
    camera: str | None = None
    audio_codec: str | None = None

    @property
    def has_sound(self) -> bool:
        """Whether it has any sound, silent or not."""
        return self.audio_codec is not None


#: Of a file that says nothing.
NO_FACTS = VideoFacts()


def read_facts(container: InputContainer, video: Stream, now: datetime) -> VideoFacts:
    """The facts of an open file, of whose streams `video` is shown. For `now`, see `captured_in_tags`."""
    # Those of the container count more: they are of the whole recording.
    tags = {name.lower(): text for name, text in [*video.metadata.items(), *container.metadata.items()]}
    sound = next(iter(container.streams.audio), None)
    return facts_in_tags(tags, None if sound is None else _codec(sound), now)


def facts_in_tags(tags: Mapping[str, str], audio_codec: str | None, now: datetime) -> VideoFacts:
    """The facts in tags, by their names in lower case."""
    places = (parse_place(tags[name]) for name in _PLACE_TAGS if name in tags)
    return VideoFacts(
        captured=captured_in_tags(tags, now),
        place=next((place for place in places if place is not None), None),
        camera=_camera(_first(tags, _MAKE_TAGS), _first(tags, _MODEL_TAGS)),
        audio_codec=audio_codec,
    )


def _codec(sound: AudioStream) -> str:
    """A codec's short name, also where it cannot be decoded."""
    context: CodecContext | None = sound.codec_context
    return "unknown" if context is None else context.codec.canonical_name[:MOST_CODEC_CHARACTERS]


def _first(tags: Mapping[str, str], names: tuple[str, ...]) -> str:
    texts = (" ".join(tags.get(name, "").split()) for name in names)
    return next(filter(None, texts), "")


def _camera(make: str, model: str) -> str | None:
    """Make and model as one name. Many models begin with their make."""
    begins = model.casefold().startswith(make.casefold())
    name = model if begins else f"{make} {model}"
    return name.strip()[:MOST_CAMERA_CHARACTERS] or None
