"""Prints the OpenAPI document: `python -m service.api.openapi > tests/golden/openapi.json`."""

import json
import sys

from service.api.app import create_app
from service.settings import load_settings


def openapi_text() -> str:
    """The OpenAPI document as JSON. It is the same for all settings."""
    document = create_app(load_settings()).openapi()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(openapi_text())
