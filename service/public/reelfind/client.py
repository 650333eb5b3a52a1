"""The client of the HTTP API of a Reelfind service.

from reelfind.client import Client

with Client("http://127.0.0.1:8000") as client:
    for hit in client.search("a dog running on a beach", top_k=3).hits:
        print(hit.path, hit.start_seconds, hit.end_seconds)
"""

from service.client import *  # noqa: F403 - it has `__all__`
from service.client import __all__ as __all__
