"""How large the body of a request may be: it depends on what the request is."""

from starlette.types import Scope

from service.api.uploads import is_upload, largest_upload
from service.api.video_uploads import FRAMING_BYTES, carries_video
from service.settings import Settings

#: The path of batches, whose bodies hold many searches.
BATCH_PATH = "/v1/search/batch"


class BodyLimits:
    """The limits of the settings, in bytes."""

    def __init__(self, settings: Settings) -> None:
        self._usual = settings.max_body_bytes
        self._batch = max(settings.max_body_bytes, settings.max_batch_body_bytes)
        self._upload = largest_upload(settings.max_image_bytes, settings.max_body_bytes)
        self._video = settings.max_upload_bytes + FRAMING_BYTES

    def of(self, scope: Scope) -> int:
        """The largest body that a request may have; `scope` is that of an ASGI request over HTTP."""
        if is_upload(scope):
            return self._upload
        if carries_video(scope):
            return self._video
        return self._batch if scope["path"] == BATCH_PATH else self._usual
