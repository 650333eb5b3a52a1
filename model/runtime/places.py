"""Where a video was taken: ISO 6709, as containers hold it."""

import math
import re
from dataclasses import dataclass

_PART = r"[+-]\d{{{degrees}}}(?:\d{{2}}(?:\d{{2}})?)?(?:\.\d{{1,12}})?"
_PLACE = re.compile(
    f"({_PART.format(degrees=2)})({_PART.format(degrees=3)})"
    r"([+-]\d{1,6}(?:\.\d{1,12})?)?(?:CRS(?:WGS_84|epsg:(?:4326|4979)))?/?",
    re.ASCII,
)
#: From the deepest trench to far above any aeroplane, in metres.
_LEAST_ALTITUDE, _MOST_ALTITUDE = -12_000.0, 100_000.0


@dataclass(frozen=True)
class Place:
    """A point on the earth, in WGS 84.

    Attributes:
        latitude: degrees north of the equator, from -90 to 90.
        longitude: degrees east of Greenwich, from -180 to 180.
        altitude_metres: above the sea, as far as the file tells; None: it does not.

    Raises:
        ValueError: there is no such place.
    """

    latitude: float
    longitude: float
    altitude_metres: float | None = None

    def __post_init__(self) -> None:
        # Written so that NaN fails.
        if not (abs(self.latitude) <= 90 and abs(self.longitude) <= 180):
            raise ValueError(f"the place {self.latitude}, {self.longitude}")
        if self.altitude_metres is not None and not (
            _LEAST_ALTITUDE <= self.altitude_metres <= _MOST_ALTITUDE
        ):
            raise ValueError(f"the altitude {self.altitude_metres} m")


def parse_place(text: str) -> Place | None:
    """A place as ISO 6709 writes it, such as `+48.8584+002.2945+035.000/`; None for anything else.

    The number of digits tells degrees, degrees and minutes, and degrees, minutes and seconds apart.
    Latitude and longitude of 0 are what a device writes that does not know where it is: no place.
    """
    match = _PLACE.fullmatch(text.strip())
    if match is None:
        return None
    latitude, longitude = _degrees(match[1], 2), _degrees(match[2], 3)
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None
    altitude = None if match[3] is None else float(match[3])
    if altitude is not None and not _LEAST_ALTITUDE <= altitude <= _MOST_ALTITUDE:
        altitude = None
    try:
        return Place(latitude, longitude, altitude)
    except ValueError:
        return None


def _degrees(text: str, digits: int) -> float | None:
    """An angle in degrees; None where minutes or seconds are 60 and more."""
    whole, point, fraction = text[1:].partition(".")
    parts = [whole[:digits], *(whole[i : i + 2] for i in range(digits, len(whole), 2))]
    parts[-1] += point + fraction
    values = [float(part) for part in parts]
    if any(value >= 60 for value in values[1:]):
        return None
    return math.copysign(sum(value / 60**i for i, value in enumerate(values)), -1 if text[0] == "-" else 1)
