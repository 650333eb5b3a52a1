"""How large the body of a request may be: it depends on what the request is."""

from starlette.types import Scope

from service.api.uploads import is_upload, largest_upload
from service.settings import Settings


class BodyLimits:
    """The limits of the settings, in bytes."""

    def __init__(self, settings: Settings) -> None:
        self._usual = settings.max_body_bytes
        self._upload = largest_upload(settings.max_image_bytes, settings.max_body_bytes)

    def of(self, scope: Scope) -> int:
        """The largest body that a request may have; `scope` is that of an ASGI request over HTTP."""
        return self._upload if is_upload(scope) else self._usual
