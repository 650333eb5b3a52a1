"""Encodes pictures as queries: as the indexer encodes a segment that shows one frame.

What a text's salience is for a text, the frame encoder's own salience is for a picture: the relevance of a
stored frame is then how alike the two are, and the salient frames are those most like the picture.

Shapes: D joint space, S salience.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, BundleManifest
from model.runtime.errors import InputError
from model.runtime.pictures import read_picture
from service.errors import NoImageQueryError, QueryError
from service.search.encoded_query import EncodedQuery
from service.search.queries import PictureQuery

#: Why no picture can be a query: the bundle reads no single pictures, or the settings have turned it off.
CannotQueryImage = Literal["no_image_query", "turned_off"]


def why_no_image_query(bundle: Bundle, *, is_allowed: bool) -> CannotQueryImage | None:
    """Why no picture can be a query; None: it can. `is_allowed` is what the settings say."""
    if not is_allowed:
        return "turned_off"
    return None if "image_query" in bundle.capabilities else "no_image_query"


def check_image_query(bundle: Bundle, *, is_allowed: bool) -> None:
    """Check that a picture can be a query.

    Raises:
        NoImageQueryError: it cannot.
    """
    reason = why_no_image_query(bundle, is_allowed=is_allowed)
    if reason == "no_image_query":
        raise NoImageQueryError(
            f"The bundle {bundle.manifest.name!r} lacks the capability image_query: it reads all frames of a "
            "segment at once, and no single picture. Search by a text, a moment or a video, or serve a "
            "library that was indexed with a bundle that has a frame encoder."
        )
    if reason == "turned_off":
        raise NoImageQueryError(
            "The settings of this server have turned off the capability image_query, which needs the frame "
            "encoder. Search by a text, a moment or a video, or set REELFIND_IMAGE_QUERIES=true."
        )


def encode_picture(bundle: Bundle, picture: PictureQuery, pointer: str = "/query") -> EncodedQuery:
    """Encode a picture that was sent. The first call opens the frame encoder.

    Args:
        bundle: a model with the capability "image_query".
        picture: the picture.
        pointer: the JSON pointer of the query in the request.

    Raises:
        QueryError: the picture cannot be read, or is too large.
        BundleError: the model fails, or has no frame encoder.
    """
    try:
        pixels = read_picture(picture.data, picture.max_pixels)
    except InputError as error:
        raise QueryError(str(error), f"{pointer}/image") from error
    return encode_pixels(bundle, pixels)


def encode_pixels(bundle: Bundle, pixels: NDArray[np.uint8]) -> EncodedQuery:
    """Encode a picture, RGB, uint8 [h, w, 3]. Raises BundleError: the model fails or has no frame encoder."""
    frame = bundle.encode_frames(bundle.manifest.image.resizing.frames(pixels[None]))
    return of_frame(bundle, frame.embedding[0], frame.salience[0])


def of_frame(
    bundle: Bundle, frame_embedding: NDArray[np.float32], frame_salience: NDArray[np.float32]
) -> EncodedQuery:
    """The query of one encoded frame, [D] and [S]. Raises BundleError: the model fails."""
    (embedding,) = bundle.encode_segments(frame_embedding[None, None], np.ones((1, 1), np.bool_))
    return EncodedQuery(embedding, query_salience(bundle.manifest, frame_salience))


def query_salience(manifest: BundleManifest, frame_salience: NDArray[np.float32]) -> NDArray[np.float32]:
    """The salience of frames as one of a query. [..., S] → [..., S].

    Numbers that follow the embedding in a salience are a frame's own correction, whatever it is compared
    with (see `model/export/frame_hubness.py`): a text has ones there, and so has a picture.
    """
    if not manifest.embedding_in_salience:
        return frame_salience
    salience = frame_salience.copy()
    salience[..., manifest.embedding_dim :] = 1
    return salience
