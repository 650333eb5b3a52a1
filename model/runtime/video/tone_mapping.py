"""Maps pictures of high dynamic range (PQ, HLG) to the range and colours of an SDR display.

The light that the codes stand for (ITU-R BT.2100) is compressed by the curve of ITU-R BT.2390, section 5.4,
applied to the largest of R, G and B, so that hues stay. The light of SDR white, 203 cd/m² (BT.2408), becomes
the display's white nearly; darker tones keep their light. The result is encoded for BT.1886, as SDR video is.
"""

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from model.runtime.video.colour import UNSPECIFIED
from model.runtime.video.gamut import BT2020, LUMINANCE_BT2020, to_bt709
from model.runtime.video.side_data import side_data

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

PQ, HLG = 16, 18  # AVColorTransferCharacteristic
ICTCP, IPT_C2 = 14, 15  # AVColorSpace
IPT_PROFILE = 5
CODES = 65536
WHITE_NITS = 203.0
# What HDR is mastered for unless the file says otherwise, and the peak of an HLG display.
PEAK_NITS = 1000.0
MAX_NITS = 10000.0
SDR_GAMMA = 2.4

# From L'M'S' to the stored signals: ICtCp of BT.2100, table 7, and IPT (Dolby Vision's profile 5).
LMS_TO_SIGNAL = {
    (ICTCP, PQ): np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096,
    (ICTCP, HLG): np.array([[2048, 2048, 0], [3625, -7465, 3840], [9500, -9212, -288]]) / 4096,
    (IPT_C2, PQ): np.array([[0.4000, 0.4000, 0.2000], [4.4550, -4.8510, 0.3960], [0.8056, 0.3572, -1.1628]]),
}
LMS_TO_BT2020 = {
    ICTCP: np.linalg.inv(np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096),
    IPT_C2: np.array(
        [
            [3.06441879, -2.16597676, 0.10155818],
            [-0.65612108, 1.78554118, -0.12943749],
            [0.01736321, -0.04725154, 1.03004253],
        ]
    ),
}


def pq_to_nits(codes: Doubles) -> Doubles:
    """Light in cd/m² of PQ codes from 0 to 1 (SMPTE ST 2084)."""
    root = np.power(codes, 32 / 2523)
    return MAX_NITS * np.power(
        np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root), 16384 / 2610
    )


def nits_to_pq(nits: Doubles) -> Doubles:
    """PQ codes from 0 to 1 of light in cd/m²."""
    power = np.power(nits / MAX_NITS, 2610 / 16384)
    return np.power((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power), 2523 / 32)


def hlg_to_scene(codes: Doubles) -> Doubles:
    """Light of the scene, from 0 to 1, of HLG codes from 0 to 1 (BT.2100 table 5)."""
    bright = (np.exp((codes - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(codes <= 0.5, np.square(codes) / 3, bright)


def compress(nits: Doubles, peak_nits: float) -> Doubles:
    """Light from 0 to `peak_nits` as light from 0 to SDR white, by BT.2390's curve; more becomes white."""
    scale = float(nits_to_pq(np.array(peak_nits)))
    white = float(nits_to_pq(np.array(WHITE_NITS))) / scale
    knee = 1.5 * white - 0.5
    code = np.minimum(nits_to_pq(nits) / scale, 1)
    if knee >= 1:
        return np.minimum(nits, WHITE_NITS)
    t = np.maximum(code - knee, 0) / (1 - knee)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    )
    return pq_to_nits(np.where(code > knee, bent, code) * scale)


@dataclass(frozen=True)
class ToneMapping:
    """How the pictures of one video are mapped.

    Attributes:
        transfer: PQ or HLG.
        matrix: AVColorSpace; those without a meaning in HDR are read as BT.2020's.
        primaries: AVColorPrimaries.
        peak_nits: the brightest light of the pictures, cd/m².
    """

    transfer: int
    matrix: int
    primaries: int
    peak_nits: float

    @classmethod
    def of(cls, frame: av.VideoFrame, dolby_vision: int | None = None) -> Self | None:
        """What a frame needs, or None if it is not of high dynamic range.

        Dolby Vision's profile 5 stores IPT, mostly without naming it. It is shown without the reshaping that
        its metadata describes.
        """
        if dolby_vision == IPT_PROFILE and frame.colorspace in (UNSPECIFIED, IPT_C2):
            return cls(PQ, IPT_C2, BT2020, _peak_nits(frame))
        if frame.color_trc not in (PQ, HLG):
            return None
        peak = _peak_nits(frame) if frame.color_trc == PQ else PEAK_NITS
        return cls(frame.color_trc, frame.colorspace, frame.color_primaries, peak)

    def __call__(
        self, frame: av.VideoFrame, width: int, height: int, scaler: Interpolation
    ) -> NDArray[np.uint8]:
        """Scale a frame and map it. → uint8 [height, width, 3]."""
        matrix = Colorspace.ITU709 if self.matrix == 1 else Colorspace.BT2020
        scaled = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="yuv444p16le" if self.is_perceptual else "rgb48le",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            interpolation=scaler,
            src_color_range=ColorRange.JPEG if self.matrix == IPT_C2 else None,  # IPT has no other
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return self.map_codes(scaled.to_ndarray().astype(np.uint16, copy=False))

    @property
    def is_perceptual(self) -> bool:
        """Whether pictures are stored as ICtCp or IPT, and not as R'G'B' or its differences."""
        return (self.matrix, self.transfer) in LMS_TO_SIGNAL

    def map_codes(self, codes: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Map stored codes of 16 bits: R'G'B', or what `is_perceptual` says. uint16 → uint8 [h, w, 3]."""
        light = self._light_of_lms(codes) if self.is_perceptual else self._light(codes)
        brightest = light.max(axis=-1)
        light *= self._gains[(np.sqrt(np.sqrt(brightest / MAX_NITS)) * (CODES - 1)).astype(np.intp)][
            ..., None
        ]
        light = np.clip(light @ self._gamut, 0, 1)
        shown: NDArray[np.uint8] = np.rint(255 * np.power(light, np.float32(1 / SDR_GAMMA))).astype(np.uint8)
        return shown

    def _light(self, codes: NDArray[np.uint16]) -> Floats:
        """Light of the display, cd/m² [h, w, 3], of R'G'B' codes."""
        light: Floats = _curve(self.transfer)[codes]
        return _display_light(light) if self.transfer == HLG else light

    def _light_of_lms(self, stored: NDArray[np.uint16]) -> Floats:
        """Light of the display, cd/m² [h, w, 3], of stored ICtCp or IPT [h, w, 3]."""
        signal = stored.astype(np.float32) / np.float32(CODES - 1)
        signal[..., 1:] -= np.float32(32768 / (CODES - 1))
        lms_codes = signal @ self._signal_to_lms
        lms = _curve(self.transfer)[np.rint(np.clip(lms_codes, 0, 1) * (CODES - 1)).astype(np.intp)]
        light = np.maximum(lms @ LMS_TO_BT2020[self.matrix].T.astype(np.float32), 0)
        return _display_light(light) if self.transfer == HLG else np.minimum(light, np.float32(MAX_NITS))

    @cached_property
    def _reformatter(self) -> VideoReformatter:
        return VideoReformatter()  # keeps its tables from one frame to the next

    @cached_property
    def _signal_to_lms(self) -> Floats:
        return np.linalg.inv(LMS_TO_SIGNAL[self.matrix, self.transfer]).T.astype(np.float32)

    @cached_property
    def _gains(self) -> Floats:
        """What light is multiplied with, by the fourth root of the brightest of R, G and B."""
        nits = np.maximum(np.linspace(0, 1, CODES) ** 4 * MAX_NITS, 1e-9)
        return (compress(nits, self.peak_nits) / nits / WHITE_NITS).astype(np.float32)

    @cached_property
    def _gamut(self) -> Floats:
        return to_bt709(self.primaries).T.astype(np.float32)


@lru_cache(maxsize=2)
def _curve(transfer: int) -> Floats:
    """For each of the codes: light of the display in cd/m² (PQ), or of the scene from 0 to 1 (HLG)."""
    codes = np.linspace(0, 1, CODES)
    return (pq_to_nits(codes) if transfer == PQ else hlg_to_scene(codes)).astype(np.float32)


def _display_light(scene: Floats) -> Floats:
    """Light of an HLG display, cd/m² [h, w, 3], for that of the scene (BT.2100 table 5)."""
    luminance = scene @ np.array(LUMINANCE_BT2020, np.float32)
    light: Floats = scene * (np.float32(PEAK_NITS) * np.power(luminance, np.float32(0.2)))[..., None]
    return light


def _peak_nits(frame: av.VideoFrame) -> float:
    """The brightest light that a frame announces: MaxCLL, else the mastering display's; else the usual."""
    peak = 0.0
    level = side_data(frame, "CONTENT_LIGHT_LEVEL")
    if level is not None:
        peak = float(struct.unpack_from("=I", level)[0])
    display = side_data(frame, "MASTERING_DISPLAY_METADATA")
    if not peak and display is not None:
        # Ten fractions, the last the greatest luminance; then whether primaries and luminances are stated.
        *_, top, bottom, _, stated = struct.unpack_from("=22i", display)
        peak = top / bottom if stated and bottom else 0.0
    return min(max(peak, WHITE_NITS), MAX_NITS) if peak > 0 else PEAK_NITS
