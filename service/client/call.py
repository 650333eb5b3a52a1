"""One request and how its answer is read, whoever sends it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import httpx
from pydantic import ValidationError

from service.client.downloads import Download
from service.client.errors import UnexpectedAnswerError, refusal
from service.client.retries import retry_after
from service.client.search_answers import Answer

T = TypeVar("T")
AnswerT = TypeVar("AnswerT", bound=Answer)


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request.

    Attributes:
        method: the HTTP method.
        path: below the service's address.
        read: makes the result of a successful answer.
        params: the query of the address; None is left out.
        body: what is sent as JSON; None: nothing.
        image: the bytes of a picture, which is sent together with the JSON.
        content: bytes that are sent as they are, in place of JSON.
        headers: beside those of every request.
        is_repeatable: whether sending it twice does what sending it once does.
        download: where the body of the answer is saved; None: it is read.
        answer_seconds: how long the answer may take to begin, if that is longer than the client's `timeout`.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    image: bytes | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = True
    download: Download | None = None
    answer_seconds: float = 0.0

    def following(self, page_token: str) -> "Call[T]":
        """The same request for the page that a token names."""
        if self.body is None:
            return replace(self, params=_on_page(self.params, page_token))
        return replace(self, body=_on_page(self.body, page_token))

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request as a client of httpx sends it."""
        how: dict[str, Any] = {}
        if self.image is not None:
            how["files"] = {"image": ("image", self.image, "application/octet-stream")}
            if self.body is not None:
                how["files"]["request"] = (None, json.dumps(self.body), "application/json")
        elif self.content is not None:
            how["content"] = self.content
        elif self.body is not None:
            how["json"] = self.body
        limit = http.timeout
        if limit.read is not None and limit.read < self.answer_seconds:
            how["timeout"] = httpx.Timeout(**{**limit.as_dict(), "read": self.answer_seconds})
        params = {name: value for name, value in self.params.items() if value is not None}
        return http.build_request(self.method, self.path, params=params, headers=self.headers, **how)

    def result(self, response: httpx.Response) -> T:
        """The result that an answer, whose body has been read or saved, stands for.

        Raises:
            ProblemError: the service says what is wrong.
            UnexpectedAnswerError: the answer is not one of Reelfind's.
        """
        if not response.is_success:
            raise refusal(response, retry_after(response))
        return self.read(response)


def _on_page(fields: Mapping[str, Any], page_token: str) -> dict[str, Any]:
    # A token says where its page begins.
    return {**{name: value for name, value in fields.items() if name != "offset"}, "page_token": page_token}


def reading(answer_type: type[AnswerT]) -> Callable[[httpx.Response], AnswerT]:
    """Reads the JSON of an answer."""

    def read(response: httpx.Response) -> AnswerT:
        try:
            return answer_type.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = "".join(f"/{part}" for part in first["loc"])
            raise UnexpectedAnswerError(
                f"{response.request.url} does not answer as Reelfind does ({place or 'its body'}: "
                f"{first['msg']}): check the address, and whether client and service are of one version."
            ) from error

    return read
