"""Addresses in object stores, and those of servers that speak their protocol."""

import os
import re
from dataclasses import dataclass

#: What an address in an object store begins with, and what people call the store.
SCHEMES = {"s3": "Amazon S3, or a server that speaks its protocol", "gs": "Google Cloud", "az": "Azure"}
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")


@dataclass(frozen=True)
class Address:
    """A place in an object store.

    Attributes:
        scheme: one of `SCHEMES`.
        bucket: the name of the bucket; on Azure, of the container.
        prefix: what the names of all objects begin with, without a slash at the end; it may be empty.
    """

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def is_address(text: str) -> bool:
    """Whether a text is an address, not a path."""
    return _ADDRESS.match(text) is not None


def is_bucket(name: str) -> bool:
    """Whether a text can be the name of a bucket or a container."""
    return _BUCKET.fullmatch(name) is not None


def endpoint_of(scheme: str) -> str:
    """The address of the server that the environment names for a kind of store; empty: the usual one."""
    if scheme != "s3":
        return ""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((value for name in names if (value := os.environ.get(name))), "").rstrip("/")
