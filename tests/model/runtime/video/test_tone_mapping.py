"""Pictures of high dynamic range look like the SDR that the ffmpeg program made them from."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.video import VideoReader
from model.runtime.video.render import SCALER
from model.runtime.video.tone_mapping import CODES, HLG, PQ, ToneMapping
from model.runtime.video.tone_table import ToneTable
from tests.support.clips import encoders, ffmpeg
from tests.support.sample_entries import insert_box

SIDE = 32
# Patches of one colour each. The first ten are darker than the curve's knee (88 cd/m² of SDR's 203).
DARK = (
    *((0, 0, 0), (30, 30, 30), (90, 90, 90), (170, 170, 170), (170, 40, 40)),
    *((40, 170, 40), (40, 40, 170), (20, 120, 150), (120, 80, 20), (160, 110, 90)),
)
BRIGHT = ((200, 200, 200), (225, 225, 225), (255, 255, 255), (240, 200, 120), (120, 200, 250))
LINEAR = "zscale=min=709:tin=709:pin=709:rin=tv:t=linear:npl=203:p={primaries},format=gbrpf32le"
SIGNAL = "zscale=t={transfer}:m={matrix}:p={primaries}:r=tv:npl=203:agamma=0,format=yuv444p10le"
NAMES = {"2020_ncl": "bt2020nc", "ictcp": "ictcp", "709": "bt709"}


@pytest.fixture(scope="module")
def sdr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patches side by side, as RGB."""
    path = tmp_path_factory.mktemp("hdr") / "patches.rgb"
    row = np.repeat(np.array(DARK + BRIGHT, np.uint8), SIDE, axis=0)
    path.write_bytes(np.broadcast_to(row, (SIDE, *row.shape)).tobytes())
    return path


def _make(
    sdr: Path, path: Path, transfer: str, matrix: str = "2020_ncl", primaries: str = "2020", encode: str = ""
) -> Path:
    filters = ",".join(
        (
            "scale=out_color_matrix=bt709:out_range=tv,format=yuv444p10le",
            LINEAR.format(primaries=primaries),
            SIGNAL.format(transfer=transfer, matrix=matrix, primaries=primaries),
        )
    )
    tags = f"-color_primaries {'bt2020' if primaries == '2020' else primaries} -color_trc {transfer}"
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIDE * len(DARK + BRIGHT)}x{SIDE}", "-i", str(sdr)),
        *("-vf", filters, *(encode or "-c:v libx264 -qp 1").split(), *tags.split()),
        *("-colorspace", NAMES[matrix], str(path)),
    )
    return path


def _patches(path: Path) -> NDArray[np.int_]:
    """The middle of every patch, [15, 3]."""
    with VideoReader(path, max_side=None) as reader:
        [segment] = reader.segments()
    return segment.frames.data[0, SIDE // 2, SIDE // 2 :: SIDE].astype(int)


@pytest.mark.parametrize("matrix", ["2020_ncl", "ictcp"])
@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_looks_like_the_sdr_that_it_was_made_from(
    transfer: str, matrix: str, sdr: Path, tmp_path: Path
) -> None:
    shown = _patches(_make(sdr, tmp_path / "hdr.mp4", transfer, matrix))
    np.testing.assert_allclose(shown[: len(DARK)], DARK, atol=9 if matrix == "ictcp" else 5)
    bright = shown[len(DARK) :]
    assert (bright[:3].max(axis=1) - bright[:3].min(axis=1) <= 3).all()  # grey stays grey
    assert 185 <= bright[0, 0] < bright[1, 0] < bright[2, 0]
    assert bright[2, 0] >= 225
    np.testing.assert_allclose(bright[3:], BRIGHT[3:], atol=30)


def test_primaries_are_those_that_the_file_names(sdr: Path, tmp_path: Path) -> None:
    for primaries in ("smpte432", "bt709"):
        shown = _patches(_make(sdr, tmp_path / f"{primaries}.mp4", "smpte2084", primaries=primaries))
        np.testing.assert_allclose(shown[: len(DARK)], DARK, atol=5)


@pytest.mark.parametrize(
    ("light", "peak"),
    [
        ("max-cll=400,100", 400),
        ("max-cll=4000,400", 4000),
        ("master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(40000000,50)", 4000),
        ("repeat-headers=1", 1000),
    ],
)
def test_the_announced_peak_decides_how_much_is_compressed(
    light: str, peak: int, sdr: Path, tmp_path: Path
) -> None:
    if "libx265" not in encoders():
        pytest.skip("this build of ffmpeg has no encoder libx265")
    encode = f"-c:v libx265 -x265-params log-level=none:qp=2:{light}"
    shown = _patches(_make(sdr, tmp_path / "peak.mp4", "smpte2084", encode=encode))
    white = shown[len(DARK) + 2]
    np.testing.assert_allclose(white, 255 * (_bt2390(203, peak) / 203) ** (1 / 2.4), atol=3)


def _bt2390(nits: float, peak: float) -> float:
    """The curve of BT.2390 for one value, with the light found by bisection of the inverse function."""

    def code(light: float) -> float:
        y = (light / 10000) ** 0.1593017578125
        return float(((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375)

    e1, top = code(nits) / code(peak), code(203) / code(peak)
    knee = 1.5 * top - 0.5
    t = (e1 - knee) / (1 - knee)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * top
    )
    low, high = 0.0, 10000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if code(middle) < bent * code(peak) else (low, middle)
    return low


def test_hdr_keeps_the_contrast_of_pictures_and_is_shrunk_and_turned_as_others(tmp_path: Path) -> None:
    flat = tmp_path / "sdr.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "mandelbrot=s=320x240:r=10,trim=duration=0.5", "-vf", "format=yuv420p"),
        *("-c:v", "libx264", "-qp", "18", "-colorspace", "bt709", str(flat)),
    )
    with VideoReader(flat) as reader:
        [original] = reader.segments()
    for transfer in ("smpte2084", "arib-std-b67"):
        hdr, turned = tmp_path / f"{transfer}.mp4", tmp_path / f"{transfer}_90.mp4"
        filters = ",".join(
            (
                LINEAR.format(primaries="2020"),
                SIGNAL.format(transfer=transfer, matrix="2020_ncl", primaries="2020"),
            )
        )
        tags = f"-color_primaries bt2020 -color_trc {transfer} -colorspace bt2020nc -pix_fmt yuv420p10le"
        ffmpeg("-i", str(flat), "-vf", filters, "-c:v", "libx264", "-qp", "18", *tags.split(), str(hdr))
        ffmpeg("-display_rotation", "90", "-i", str(hdr), "-c", "copy", str(turned))
        with VideoReader(hdr) as reader:
            [segment] = reader.segments()
        assert segment.frames.data.std() > 0.8 * original.frames.data.std()
        with VideoReader(turned, max_side=160) as reader:
            [segment] = reader.segments()
        assert segment.frames.data.shape == (5, 160, 120, 3)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_table_maps_nearly_as_the_mapping_does(transfer: int) -> None:
    mapping = ToneMapping(transfer, 9, 9, 1000.0)
    steps = np.linspace(0, CODES - 1, 22)
    # A grid that is none of the table's, and all greys.
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 121, 3)
    codes = np.concatenate([np.repeat(np.linspace(0, CODES - 1, 1210), 3).reshape(-1, 121, 3), grid])
    codes = np.rint(codes).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(codes, format="rgb48le")
    table = ToneTable(mapping)
    for _ in range(2):
        shown = table(frame, codes.shape[1], codes.shape[0], SCALER)
        difference = np.abs(shown.astype(int) - mapping.map_codes(codes))
        assert difference.mean() < 0.5
        assert np.quantile(difference, 0.99) <= 4
    # Pictures may change their size.
    assert table(frame, 60, 40, SCALER).shape == (40, 60, 3)
    with pytest.raises(ValueError, match="R'G'B' alone"):
        ToneTable(ToneMapping(transfer, 14, 9, 1000.0))


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_dolby_visions_profile_5_is_read_as_ipt(container: str, tmp_path: Path) -> None:
    # SDR to light, to BT.2020, to LMS, to PQ, to IPT, each by its definition.
    light = 203 * (np.array(DARK + BRIGHT) / 255) ** 2.4
    light = light @ np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]).T
    to_rgb = [[3.06441879, -2.16597676, 0.10155818], [-0.65612108, 1.78554118, -0.12943749]]
    lms = np.maximum(np.linalg.solve([*to_rgb, [0.01736321, -0.04725154, 1.03004253]], light.T), 0) / 10000
    power = lms**0.1593017578125
    codes = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    ipt = np.array([[0.4, 0.4, 0.2], [4.455, -4.851, 0.396], [0.8056, 0.3572, -1.1628]]) @ codes
    stored = np.rint(1023 * ipt + [[0], [512], [512]]).astype("<u2")
    planes = np.broadcast_to(np.repeat(stored, SIDE, axis=1)[:, None], (3, SIDE, SIDE * len(light)))
    (tmp_path / "planes.yuv").write_bytes(planes.tobytes())
    plain = tmp_path / "plain.mp4"
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", f"{SIDE * len(light)}x{SIDE}"),
        *("-i", str(tmp_path / "planes.yuv"), "-c:v", "libx264", "-qp", "1", str(plain)),
    )
    path = insert_box(plain, tmp_path / "dolby.mp4", b"dvcC", bytes([1, 0, 5 << 1, 0x1D]) + bytes(20))
    if container == "mkv":
        ffmpeg("-i", str(path), "-c", "copy", "-strict", "unofficial", str(path.with_suffix(".mkv")))
        path = path.with_suffix(".mkv")
    shown = _patches(path)
    np.testing.assert_allclose(shown[: len(DARK)], DARK, atol=5)
    np.testing.assert_allclose(shown[len(DARK) :], BRIGHT, atol=30)
