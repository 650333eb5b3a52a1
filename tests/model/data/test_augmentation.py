"""Changes to clips: the same to every frame, and never against what a text says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from model.arrays import Frames
from model.data.augmentation import Augmentation, names_sides
from model.data.loaders import VideoLoader
from model.data.sources import open_source
from model.data.stills import CaptionedStills, read_stills
from model.data.views import view_of
from model.families.lgdn.family import LGDNFamily
from model.runtime.preprocessing import TextTokenizer
from tests.support.naive_views import naive_view
from tests.support.tiny_photos import make_photos, make_tokenizer, tiny_config

PLAIN = Augmentation((0.0, 0.0, 1.0, 1.0), False, (1.0, 1.0, 1.0), 0.0, 0, 0.0)


def noise(seed: int = 0) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_an_augmentation_is_repeatable_and_changes_the_frame() -> None:
    drawn = [Augmentation.draw(np.random.default_rng(i), flip=bool(i % 2)) for i in range(20)]
    views = [augmentation.apply(noise()) for augmentation in drawn]
    for i, view in enumerate(views):
        assert view.shape == (32, 32, 3)
        assert view.dtype == np.uint8
        again = Augmentation.draw(np.random.default_rng(i), flip=bool(i % 2))
        np.testing.assert_array_equal(view, again.apply(noise()))
    assert len({view.tobytes() for view in views}) == 20
    assert [a.flip for a in drawn] == [bool(i % 2) for i in range(20)]
    for left, top, width, height in (a.crop for a in drawn):
        assert 0 <= left <= left + width <= 1
        assert 0 <= top <= top + height <= 1
        assert 0.4 < width * height <= 1


def test_each_part_does_what_it_says() -> None:
    frame = noise()
    np.testing.assert_array_equal(PLAIN.apply(frame), frame)
    np.testing.assert_array_equal(replace(PLAIN, flip=True).apply(frame), frame[:, ::-1])
    flat = np.kron(frame[:2, :2], np.ones((16, 16, 1), np.uint8))
    corner = replace(PLAIN, crop=(0.5, 0.5, 0.5, 0.5)).apply(flat)
    # Away from the edges, where the resampling reads pixels beyond them.
    assert np.abs(corner[8:, 8:].astype(int) - frame[1, 1]).max() <= 1
    dark = replace(PLAIN, enhance=(0.5, 1.0, 1.0)).apply(frame)
    assert np.abs(dark.astype(float) - frame * 0.5).max() <= 1
    barred = replace(PLAIN, bars=0.125).apply(np.full_like(frame, 200))
    assert (barred[:4] == 0).all()
    assert (barred[28:] == 0).all()
    assert (barred[6:26] == 200).all()
    assert replace(PLAIN, blur=1.0).apply(frame).std() < 0.6 * frame.std()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog to the left of a cat", True),
        ("She waves her RIGHT hand.", True),
        ("the leftmost car", True),
        ("a right-handed batsman", True),
        ("he turns rightwards", True),
        ("a bright cleft in the rock", False),
        ("a copyrighted song", False),
        ("a dog runs", False),
    ],
)
def test_texts_that_name_a_side_are_known(text: str, expected: bool) -> None:
    assert names_sides(text) is expected


def test_a_view_changes_all_images_of_an_item_alike(tmp_path: Path) -> None:
    stills = read_stills(make_photos(tmp_path / "photos"), "train")
    joined = replace(stills, items=(tuple(range(12)), tuple(range(12, 24))), captions=stills.captions[:2])
    for view in (1, 2):
        for image in (12, 23):
            expected = naive_view(joined, image, view, 48, seed=5)
            np.testing.assert_array_equal(view_of(joined, image, view, 48, seed=5), expected)
    np.testing.assert_array_equal(view_of(joined, 3, 0, 48, seed=5), joined.load(3, 48))
    # An image of no item is changed by its own name, whatever it is joined with.
    alone = CaptionedStills("train", joined.images[13:14], (), (), ())
    mixed = joined.join(alone)
    np.testing.assert_array_equal(view_of(alone, 0, 1, 48, seed=5), view_of(mixed, 24, 1, 48, seed=5))
    assert (view_of(alone, 0, 1, 48, seed=5) != view_of(joined, 13, 1, 48, seed=5)).any()


def test_clips_are_augmented_and_not_mirrored_against_their_text(tmp_path: Path) -> None:
    """All captions of these photos name a side, and a mirrored block would be on the other one."""
    config = tiny_config(make_photos(tmp_path / "photos"), tmp_path / "run")
    source = open_source(config, "train")
    tokenizer = TextTokenizer.from_file(make_tokenizer(tmp_path / "tokenizer.json"), 16)
    collate = partial(LGDNFamily().collate, tokenizer=tokenizer)
    plain, changed = (
        VideoLoader(source, collate, replace(config, data=replace(config.data, augment=augment)))
        for augment in (False, True)
    )
    different = 0
    for number in range(plain.steps):
        before, after = plain.make(0, number), changed.make(0, number)
        again = changed.make(0, number).frames.numpy()
        np.testing.assert_array_equal(after.frames.numpy(), again)
        for row, video in enumerate(before.video_ids.tolist()):
            slot = int(after.frame_mask[row].argmax())
            frame = after.frames[after.slots[row, slot]].numpy().astype(float)
            block = np.abs(frame - 110).sum(-1).mean(0)  # the ground is grey
            right = "right" in source.captions[video][0]
            assert (block[24:].mean() > block[:24].mean()) == right
        different += not np.array_equal(before.frames.numpy(), again)
    assert different == plain.steps
