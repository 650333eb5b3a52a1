"""Connects to object stores, and says in plain words what they refuse."""

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, HTTPStore, ObjectStore, S3Store

from model.runtime.errors import InputError
from model.runtime.remote.address import Address

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

#: How long a request may take, and all tries of it.
_REQUEST_SECONDS, _CONNECT_SECONDS, _RETRY_SECONDS = 30, 5, 10
_MOST_RETRIES = 8
_CLIENT_OPTIONS: "ClientConfig" = {
    "timeout": timedelta(seconds=_REQUEST_SECONDS),
    "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
}
_STATUS = re.compile(r"\bstatus(?: code)?:? ?(\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
#: What people need to know of some of S3's codes.
_CODES = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "the keys do not allow it",
    "InvalidAccessKeyId": "the store does not know the key AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not the secret of AWS_ACCESS_KEY_ID",
    "SlowDown": "the store asks for fewer requests",
}


def connect(address: Address, endpoint: str) -> ObjectStore:
    """The store of an address, with the prefix of the address. It reads keys from the environment.

    Args:
        address: the address.
        endpoint: the address of the server; empty: the usual one.

    Raises:
        InputError: the environment does not say which account of Azure it is.
    """
    common: dict[str, Any] = {
        "prefix": address.prefix or None,
        "client_options": {**_CLIENT_OPTIONS, **({"allow_http": True} if _is_plain(endpoint) else {})},
        "retry_config": _retries(),
    }
    if address.scheme == "s3":
        return S3Store(address.bucket, config=cast("S3Config", _s3_options(endpoint)), **common)
    if address.scheme == "gs":
        return GCSStore(address.bucket, **common)
    if not os.environ.get("AZURE_STORAGE_ACCOUNT_NAME"):
        raise InputError(
            f"{str(address)!r} is in a container of Azure: set AZURE_STORAGE_ACCOUNT_NAME to its account"
        )
    return AzureStore(address.bucket, **common)


def connect_web(address: str) -> ObjectStore:
    """The store whose one file is at an address on a web server."""
    return HTTPStore.from_url(
        address,
        client_options={**_CLIENT_OPTIONS, **({"allow_http": True} if _is_plain(address) else {})},
        retry_config=_retries(),
    )


def lance_options(address: Address, endpoint: str) -> dict[str, str]:
    """Lance's `storage_options` for the same store; it reads keys from the environment, too."""
    options = {
        "client_max_retries": str(_MOST_RETRIES),
        "client_retry_timeout": str(_RETRY_SECONDS),
        "timeout": f"{_REQUEST_SECONDS} seconds",
        "connect_timeout": f"{_CONNECT_SECONDS} seconds",
    }
    if _is_plain(endpoint):
        options["allow_http"] = "true"
    return options | (dict(_s3_options(endpoint)) if address.scheme == "s3" else {})


def reason_of(error: BaseException) -> str:
    """What a store says, in plain words."""
    text = " ".join(str(error).split())
    code = _CODE.search(text)
    if code is not None and code[1] in _CODES:
        return _CODES[code[1]]
    if is_refused(error):
        return "the keys do not allow it, or are not known"
    if "error sending request" in text:
        return "the store cannot be reached"
    status = _STATUS.search(text)
    return f"the store answers {status[1]}" if status else f"the store says: {text[:200]}"


def is_refused(error: BaseException) -> bool:
    """Whether a store refuses for a reason that stays."""
    return isinstance(error, PermissionDeniedError | UnauthenticatedError)


def _retries() -> "RetryConfig":
    return {
        "max_retries": _MOST_RETRIES,
        "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=2),
            "base": 2,
        },
    }


def _s3_options(endpoint: str) -> dict[str, str]:
    options = {}
    if endpoint:
        options["aws_endpoint"] = endpoint
        if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            options["aws_region"] = "us-east-1"
    return options


def _is_plain(endpoint: str) -> bool:
    return endpoint.startswith("http://")
