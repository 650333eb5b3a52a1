"""The settings of the service: one table that is the code, the environment and the documentation.

`python -m service.settings` prints the documentation (`deploy/settings.md`).
"""

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.runtime.errors import InputError
from model.runtime.exits import TRACEBACK_VARIABLE
from service.errors import QueryError

ENV_PREFIX = "REELFIND_"

#: Variables that are no settings, and what they do. Any other one is a mistake.
OTHER_VARIABLES: Mapping[str, str] = {
    TRACEBACK_VARIABLE: "`1` shows the traceback of an internal error.",
    "REELFIND_MEDIA": "Read by `docker-compose.yml`: the folder of videos on the host.",
    "REELFIND_PUBLISH": "Read by `docker-compose.yml`: the address and port on the host.",
    "REELFIND_FAULT": "Tests: kills or hangs a process at a named point, see `model/runtime/faults.py`.",
    "REELFIND_FAULT_LOG": "Tests: a file that gets a line for every such point.",
    "REELFIND_DATA": "Tests: the folder with the data sets that some tests want.",
    "REELFIND_REQUIRE_BROWSER": "Tests: `1` fails those that need a browser where there is none.",
    "REELFIND_REQUIRE_CUDA": "Tests: `1` fails those that need a GPU where there is none.",
}


def _default_search_threads() -> int:
    # More than one a core: a search that waits for the matching head waits for others to join its batch.
    return max(4, min(8, os.cpu_count() or 4))


class Settings(BaseSettings):
    """What a service needs to know. A flag wins over the environment, the environment over the default."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", allow_inf_nan=False)

    library: Path = Field(Path("library"), description="The library's folder.")
    bundle: Path | None = Field(
        None, description="The model bundle's folder. Empty: the one that is shipped."
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; `0.0.0.0` is every one.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    provider: Literal["cpu", "cuda", "tensorrt"] = Field("cpu", description="Where the model runs.")
    engine_cache: Path | None = Field(
        None, description="Where TensorRT keeps the engines it builds, which takes minutes. Empty: nowhere."
    )
    threads: int | None = Field(
        None, ge=1, description="Threads of one model call. Empty: the model runtime's choice."
    )
    default_top_k: int = Field(10, ge=1, description="Hits of a search that names no `top_k`.")
    max_top_k: int = Field(1000, ge=1, description="The most hits that a search may ask for.")
    max_candidates: int = Field(
        1000,
        ge=1,
        description="The most segments that a search may have re-ranked; a model's default is cut to it.",
    )
    deadline_ms: int = Field(
        2000,
        ge=1,
        le=3_600_000,
        description="Milliseconds after which a search that names no deadline gives re-ranking up.",
    )
    max_query_characters: int = Field(1000, ge=1, description="The longest query text.")
    max_body_bytes: int = Field(65536, ge=1024, description="The largest request body.")
    search_threads: int = Field(
        default_factory=_default_search_threads, ge=1, description="Searches that run at the same time."
    )
    max_waiting_searches: int = Field(
        256, ge=0, description="Searches that may wait for a thread; the next one is answered 503."
    )
    reload_seconds: float = Field(
        5.0, ge=0, description="How often to look for a new snapshot, in seconds; 0 never looks."
    )
    shutdown_seconds: int = Field(
        10, ge=0, description="How long requests in flight may take to finish after SIGTERM, in seconds."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins of other sites whose pages may call the API, separated by commas."
    )
    access_log: bool = Field(True, description="Log a line a request.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least to log.")

    @field_validator("bundle", "engine_cache", "threads", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _default_within_maximum(self) -> Self:
        if self.default_top_k > self.max_top_k:
            raise ValueError(
                f"default_top_k {self.default_top_k} is above max_top_k {self.max_top_k}: "
                "lower one or raise the other"
            )
        return self


def variable_of(setting: str) -> str:
    """The environment variable of a setting."""
    return f"{ENV_PREFIX}{setting.upper()}"


def check_environment(environment: Mapping[str, str] | None = None) -> None:
    """Refuse variables that begin as ours do and that nothing reads: a misspelt setting would be ignored.

    Raises:
        InputError: there are such variables; names each with the one that it looks like.
    """
    known = [variable_of(name).removeprefix(ENV_PREFIX) for name in Settings.model_fields]
    known += [name.removeprefix(ENV_PREFIX) for name in OTHER_VARIABLES]
    problems = []
    for variable in sorted(os.environ if environment is None else environment):
        # Settings are read in any case of letters.
        name = variable.upper().removeprefix(ENV_PREFIX)
        if name != variable.upper() and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {ENV_PREFIX}{nearest[0]}?" if nearest else "unset it"
            problems.append(f"{variable} is not a setting: {remedy}")
    if problems:
        raise InputError("; ".join(problems))


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from flags (those that are not None), the environment and the defaults.

    Raises:
        QueryError: a value that does not fit, with its name and what would.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for issue in error.errors(include_url=False):
            name = str(issue["loc"][0]) if issue["loc"] else ""
            if not name:
                lines.append(issue["msg"].removeprefix("Value error, "))
                continue
            source = f"--{name.replace('_', '-')}" if name in given else variable_of(name)
            lines.append(f"{source} is {issue['input']!r}: {issue['msg'][:1].lower()}{issue['msg'][1:]}")
        raise QueryError("; ".join(lines)) from None


_HEADER = """\
# Settings

Generated by `python -m service.settings > deploy/settings.md`; a test holds that they agree.

Each is an environment variable. Those that `reelfind serve --help` lists are options too, and win over it.
A variable that begins with `REELFIND_` and is in neither table stops every command with exit code 2.

| Variable | Default | What |
|---|---|---|
"""


_OTHER_HEADER = """
Variables that are no settings:

| Variable | What |
|---|---|
"""


def settings_table() -> str:
    """The Markdown page of all settings and other variables, made from the model and the table above."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if field.default_factory is not None:
            shown = "cores, 4 to 8"
        elif default is None or default == ():
            shown = "empty"
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        rows.append(f"| `{variable_of(name)}` | {shown} | {field.description} |\n")
    others = [f"| `{name}` | {what} |\n" for name, what in OTHER_VARIABLES.items()]
    return _HEADER + "".join(rows) + _OTHER_HEADER + "".join(others)


if __name__ == "__main__":
    sys.stdout.write(settings_table())
