"""The settings of the service: one class defines their values, their variables and their documentation.

`python -m service.settings` prints the documentation (`deploy/settings.md`).
"""

import difflib
import os
import re
import shlex
import sys
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from indexer.library.storage.address import address_of, library_folder
from model.runtime.errors import InputError
from model.runtime.exits import TRACEBACK_VARIABLE
from model.runtime.remembered import state_folder
from model.runtime.remote.path import media_path
from model.runtime.sandbox.confinement import SandboxMode
from service.errors import QueryError

ENV_PREFIX = "REELFIND_"

#: Variables with our prefix that are not settings, and what they do. Any other variable is refused.
OTHER_VARIABLES: Mapping[str, str] = {
    TRACEBACK_VARIABLE: "`1` shows the traceback of an internal error.",
    "REELFIND_KEY": "The key that `reelfind.client` and `reelfind search --server URL` send.",
    "REELFIND_MEDIA": "Read by `docker-compose.yml`: the folder of videos on the host.",
    "REELFIND_BUNDLE_FOLDER": "Read by `docker-compose.yml`: the folder of further bundles on the host.",
    "REELFIND_PUBLISH": "Read by `docker-compose.yml`: the address and port on the host.",
    "REELFIND_INDEXER_MEMORY": "Read by `docker-compose.yml`: the memory of the indexer's container.",
    "REELFIND_SETTLE_SECONDS": "`reelfind index`: see its option `--settle`.",
    "REELFIND_INDEXER_PIDS": "Read by `docker-compose.yml`: how many processes and threads it may have.",
    "REELFIND_VECTORS": "The Milvus server of the vectors, for the service and for every command that reads "
    "or changes a library whose vectors are there: `milvus://[user:password@]host[:port][/database]`, "
    "`milvus+tls://…` with TLS.",
    "REELFIND_VECTORS_SECONDS": "Seconds that a search waits for that server; 2 by default.",
    "REELFIND_FAULT": "Tests: kills or hangs a process at a named point; see `model/runtime/faults.py`.",
    "REELFIND_FAULT_LOG": "Tests: a file to which the name of every such point reached is appended.",
    "REELFIND_DATA": "Tests: the folder with the data sets that some tests need.",
    "REELFIND_MILVUS_TESTS": "Tests: with `1`, those run that start a Milvus server (`make milvus`); with an "
    "address, those that ask the server there.",
    "REELFIND_CLUSTER_TESTS": "Tests: with `1`, those run that need a Ray cluster (`make cluster`).",
    "REELFIND_REQUIRE_BROWSER": "Tests: with `1`, those that need a browser fail without one, not skip.",
}


#: A name of a header (RFC 9110).
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Headers that clients send themselves, or that name no user.
_NO_USER_HEADERS = frozenset(
    {"authorization", "cookie", "host", "origin", "x-api-key", "x-forwarded-for", "x-forwarded-proto"}
)
#: A name, or `*.` and the end of names. Addresses need no setting.
_HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
#: The options of `reelfind serve` that are not named like their setting.
#: One of several folders and addresses between colons: those of an address separate nothing.
_MEDIA_ROOT = re.compile(r"(?:https?://(?:\[[^\]]*\]|[^/:]*)(?::\d+)?|(?:s3|gs|az)://)?[^:]*")
_OPTION_OF = {"media_roots": "--media"}


def _default_search_threads() -> int:
    # More than there are cores: searches that wait for a model share its calls, and take no core.
    return max(16, min(32, os.cpu_count() or 16))


class Settings(BaseSettings):
    """The settings. A command-line option wins over the environment variable, which wins over the default."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", allow_inf_nan=False)

    library: Annotated[Path, BeforeValidator(library_folder)] = Field(
        Path("library"),
        description="Folder of the library, or its address in an object store: `s3://BUCKET/PREFIX`, "
        "`gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.",
    )
    bundle: Path | None = Field(
        None, description="Folder of the model bundle. Empty: the bundle that ships with Reelfind."
    )
    bundles: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Folders of further bundles, and folders that hold such folders, separated by colons. Of "
        "all known bundles, the one is opened that the library's snapshot was made with.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; `0.0.0.0` means all.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 chooses a free one.")
    auth: Literal["none", "keys", "proxy"] = Field(
        "none",
        description="Who may ask. `none`: everybody who reaches the service, as an administrator; only where "
        "it listens on this computer alone. `keys`: who has a key of `reelfind keys create`. `proxy`: whom "
        "the header of a trusted proxy names.",
    )
    insecure: bool = Field(
        False,
        description="Whether `none` is allowed where other computers can reach the service: they can then do "
        "everything.",
    )
    state: Path | None = Field(
        None,
        description="Folder for what the service itself keeps, such as keys and jobs; for its user alone. "
        "Empty: beside the library, of the same name with `-state`; of a library in an object store, in "
        "`reelfind/services` of the folder that `XDG_STATE_HOME` names, by default `~/.local/state`.",
    )
    session_hours: float = Field(
        168.0, gt=0, le=8784, description="Hours after which a browser must log in again."
    )
    signed_url_hours: float = Field(
        24.0, gt=0, le=8784, description="Hours that a signed address may last at most."
    )
    auth_header: str = Field(
        "", description="With `proxy`: the header in which the proxy names the user, such as `Remote-User`."
    )
    auth_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="With `proxy`: addresses and networks of the proxies that may send this header, "
        "separated by commas. From any other address the header is refused.",
    )
    auth_users: Path | None = Field(
        None, description="With `proxy`: the TOML file that says what each user may do."
    )
    rate_limit: str = Field(
        "6000/minute",
        description="Most requests with one key or by one user, such as `100/second; 6000/hour`. Empty: any "
        "number.",
    )
    address_rate_limit: str = Field(
        "12000/minute",
        description="Most requests from one address (IPv6: one /64 network). Empty: any number. With `none`, "
        "this computer's own do not count.",
    )
    failure_rate_limit: str = Field(
        "10/minute; 100/hour",
        description="Most wrong keys from one address; then 429 without looking at the key. Empty: any "
        "number.",
    )
    audit_log: Path | None = Field(
        None,
        description="File that gets a JSON line for each change, log-in and refused attempt. Empty: "
        "`audit.jsonl` in the state folder; with `none`: nowhere.",
    )
    audit_megabytes: float = Field(
        10.0, gt=0, description="Size at which a new file of the audit log is begun, in megabytes."
    )
    audit_files: int = Field(10, ge=0, le=1000, description="Number of full files of the audit log to keep.")
    provider: Literal["cpu", "cuda", "tensorrt"] = Field(
        "cpu", description="Where the model runs: `cpu`, `cuda` or `tensorrt`."
    )
    hwaccel: Literal["cuda"] | None = Field(
        None,
        description="What decodes the videos of jobs, `reelfind index` and `reelfind watch`: `cuda` (NVDEC), "
        "and software what it cannot. Empty: software alone. See the option `--hwaccel` of `reelfind index`.",
    )
    pinned_memory: bool = Field(
        False,
        description="Whether jobs, `reelfind index` and `reelfind watch` copy frames to a GPU, and results "
        "from it, by page-locked memory; nothing changes without a GPU.",
    )
    engine_cache: Path | None = Field(
        None,
        description="Folder where TensorRT stores its engines, which take minutes to build. Empty: nowhere.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads for one call of the model. Empty: ONNX Runtime chooses; "
        "the segment encoder and the moment head have one then.",
    )
    default_top_k: int = Field(10, ge=1, description="Number of hits of a search that does not set `top_k`.")
    max_top_k: int = Field(1000, ge=1, description="Largest `top_k` that a search may set.")
    max_candidates: int = Field(
        1000,
        ge=1,
        description="Most segments that one search may re-rank; also caps the bundle's default.",
    )
    deadline_ms: int = Field(
        2000,
        ge=1,
        le=3_600_000,
        description="Deadline, in milliseconds, of a search that sets none. As many candidates are re-ranked "
        "as can be in time.",
    )
    max_deadline_ms: int = Field(
        60_000,
        ge=1,
        le=3_600_000,
        description="Longest deadline, in milliseconds; longer ones count as this.",
    )
    max_search_pairs: int = Field(
        4000,
        ge=1,
        description="Most pairs of a text and a frame that one search may match (candidates × salient frames "
        "× parts of a long text). Of a search that asks for more, fewer candidates are re-ranked, but ten.",
    )
    max_video_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Share of the candidates that one video may have, but always two, while there are "
        "segments of others.",
    )
    max_query_characters: int = Field(1000, ge=1, description="Longest query text, in characters.")
    max_body_bytes: int = Field(65536, ge=1024, description="Largest request body, in bytes.")
    max_batch_body_bytes: int = Field(
        1_048_576, ge=1024, description="Largest body of a batch of searches, in bytes."
    )
    image_queries: bool = Field(
        True,
        description="Whether pictures may be queries. The first one opens the frame encoder; `false` saves "
        "its memory.",
    )
    max_image_bytes: int = Field(
        20_000_000, ge=1024, description="Largest picture that a search may send, in bytes."
    )
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        description="Most pixels of a picture that a search may send. One is decoded at a time, which takes "
        "up to 8 bytes for each of its pixels.",
    )
    search_threads: int = Field(
        default_factory=_default_search_threads,
        ge=1,
        description="Most searches at once in one process; one more may run, for a client that has none.",
    )
    search_processes: int = Field(
        0,
        ge=0,
        description="Most processes that answer searches, the server's own among them. The others start when "
        "searches come faster than they are answered, if memory suffices, and end after ten minutes without "
        "any. 0: one for each core, at most 8. 1: the server alone.",
    )
    shared_calls: bool = Field(
        True,
        description="Whether searches that wait at the same time share calls of the text encoder and of the "
        "vector index.",
    )
    row_cache_mb: int = Field(
        256,
        ge=0,
        description="Memory for what searches have read of segments (9 KB each with the bundle that ships "
        "with Reelfind) and of the tokens of frames, in MiB: it is not read again, from a new snapshot "
        "neither, and what was not used for longest goes first. 0: nothing is kept.",
    )
    max_waiting_searches: int = Field(
        256,
        ge=0,
        description="Number of searches that may wait for a thread; of the client with most of them, further "
        "ones are answered with 503.",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        description="Most connections at once; fewer if the limit of open files does not allow them. For a "
        "new one an idle one is closed; without any it is answered with 503.",
    )
    max_connections_per_client: int = Field(
        250,
        ge=1,
        description="Most connections at once from one address (IPv6: one /64 network). Behind a proxy all "
        "come from its address: set it to `REELFIND_MAX_CONNECTIONS` there.",
    )
    trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="Addresses and networks of proxies, separated by commas, whose `X-Forwarded-For` names "
        "the client that a search counts for. Empty: none.",
    )
    receive_seconds: float = Field(
        15.0, gt=0, description="Seconds that a request may take to arrive, headers and body; then 408."
    )
    send_seconds: float = Field(
        60.0,
        gt=0,
        description="Seconds after which a connection is closed whose client reads nothing.",
    )
    keep_alive_seconds: int = Field(
        5, ge=1, description="Seconds that a connection may stay open without a request."
    )
    reload_seconds: float = Field(
        5.0, ge=0, description="Seconds between checks for a new snapshot; 0 turns the checks off."
    )
    reload_spread_seconds: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Where several services share a library: a new snapshot is loaded after a time that each "
        "draws anew, from 0 to so many seconds, so that they do not load it all at once.",
    )
    scrub_hours: float = Field(
        24.0,
        ge=0,
        description="Hours in which every file of the library is read once in the background and compared "
        "with its checksum; 0 turns this off.",
    )
    shutdown_seconds: int = Field(
        10, ge=0, description="Seconds that requests in flight may take to finish after SIGTERM."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names under which the service may be reached, besides `localhost`, the name in "
        "`REELFIND_HOST` and every IP address; separated by commas. `*.example.org` means every name that "
        "ends so.",
    )
    media_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="Folders and addresses (`s3://BUCKET/PREFIX`) whose videos may be played, separated by "
        "colons. Empty: those that `reelfind index` was given for this library by the same user on this "
        "computer.",
    )
    max_encoders: int = Field(
        2,
        ge=0,
        description="Streams and clips that are made at the same time, each by a process of its own; further "
        "ones are answered with 503. 0: none are made.",
    )
    encoder_memory_mb: int = Field(
        4096,
        ge=512,
        description="Memory that each of these processes may use, in MiB. 8K video takes 4 GiB, and more.",
    )
    sandbox: SandboxMode = Field(
        "auto",
        description="Whether these processes are confined to the one file that they read: `auto` (as far as "
        "the system can), `required` (make nothing otherwise) or `off`.",
    )
    stream_height: int = Field(
        720,
        ge=144,
        le=2160,
        description="Most rows of the picture of a stream; the most columns are 16/9 of it. Of a picture "
        "that is higher than wide, the other way around.",
    )
    clip_height: int = Field(
        1080,
        ge=144,
        le=2160,
        description="The same of a clip that is encoded. One that is copied stays as it is.",
    )
    max_clip_seconds: float = Field(300.0, gt=0, description="Longest clip, in seconds.")
    cache: Path | None = Field(
        None,
        description="Folder where finished streams and clips are stored. Empty: `reelfind/playback` in the "
        "folder that `XDG_CACHE_HOME` names, by default `~/.cache`.",
    )
    cache_mb: int = Field(
        2048,
        ge=0,
        description="Size of that folder, in MiB; what was not used for longest goes first. 0: nothing is "
        "stored.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of other sites whose pages may call the API, such as "
        "`https://intranet.example.org`; separated by commas.",
    )
    writes: bool = Field(
        False,
        description="Whether clients may change titles, tags and notes, and remove videos from the library. "
        "The service must be able to write to the library's folder.",
    )
    allow_delete_media: bool = Field(
        False,
        description="Whether clients that may remove a video from the library may also delete its file, if "
        "it lies in one of the media folders.",
    )
    jobs: bool = Field(
        False,
        description="Whether clients may start indexing runs. The service must be able to write to the "
        "library's folder.",
    )
    job_memory_mb: int | None = Field(
        None,
        ge=1024,
        description="Memory that the process of a job may ask for, in MiB, without that of its decoders. "
        "Empty: any.",
    )
    upload_folder: Path | None = Field(
        None,
        description="Folder for the videos that clients upload, in one of the media folders. Needs "
        "`REELFIND_JOBS`. Empty: they may not upload any.",
    )
    max_upload_bytes: int = Field(
        20_000_000_000, ge=1, description="Largest video that a client may upload, in bytes."
    )
    access_log: bool = Field(True, description="Whether to log one line per request.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe messages to log: `debug`, `info`, `warning` or `error`."
    )

    @field_validator(
        "bundle",
        "hwaccel",
        "engine_cache",
        "threads",
        "cache",
        "state",
        "auth_users",
        "audit_log",
        "job_memory_mb",
        "upload_folder",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("allowed_hosts", "cors_origins", "auth_proxies", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("bundles", mode="before")
    @classmethod
    def _split_folders(cls, value: Any) -> Any:
        return tuple(part for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("media_roots", mode="before")
    @classmethod
    def _split_media(cls, value: Any) -> Any:
        parts = _MEDIA_ROOT.findall(value) if isinstance(value, str) else value
        return tuple(media_path(part) for part in parts if part) if parts else parts

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST_NAME.fullmatch(host):
                raise ValueError(
                    f"{host!r} is not the name of a host: write names alone, such as nas.local, without "
                    "http:// and port"
                )
        return tuple(host.lower() for host in hosts)

    @field_validator("auth_header")
    @classmethod
    def _check_header(cls, name: str) -> str:
        if name and (not _HEADER_NAME.fullmatch(name) or name.lower() in _NO_USER_HEADERS):
            raise ValueError(f"{name!r} is not a header that names a user: write one such as Remote-User")
        return name.lower()

    @field_validator("auth_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            try:
                ip_network(proxy)
            except ValueError:
                raise ValueError(
                    f"{proxy!r} is no address or network: write them such as 10.0.0.2 or 10.0.0.0/24"
                ) from None
        return proxies

    @field_validator("rate_limit", "address_rate_limit", "failure_rate_limit")
    @classmethod
    def _check_limit(cls, text: str) -> str:
        # Importing it takes a while, which commands without such a setting do without.
        from limits import parse_many

        try:
            limits = parse_many(text) if text else []
        except ValueError:
            limits = None
        if limits is None or any(limit.amount < 1 for limit in limits):
            raise ValueError("write a number and a time, such as 100/second or 10/minute; 100/hour")
        return text

    @field_validator("bundles", "media_roots")
    @classmethod
    def _absolute(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(folder.absolute() for folder in folders)

    @model_validator(mode="after")
    def _default_within_maximum(self) -> Self:
        if self.default_top_k > self.max_top_k:
            raise ValueError(
                f"default_top_k {self.default_top_k} is above max_top_k {self.max_top_k}: "
                "lower one or raise the other"
            )
        if self.deadline_ms > self.max_deadline_ms:
            raise ValueError(
                f"deadline_ms {self.deadline_ms} is above max_deadline_ms {self.max_deadline_ms}: "
                "lower one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _hwaccel_fits_sandbox(self) -> Self:
        if self.hwaccel is not None and self.sandbox == "required":
            raise ValueError(
                f"hwaccel {self.hwaccel}: the driver of a GPU cannot be confined as sandbox required wants: "
                "use sandbox auto, or leave out hwaccel"
            )
        return self

    @property
    def cache_folder(self) -> Path | None:
        """The folder where finished streams and clips are stored; None where the user has no home."""
        if self.cache is not None:
            return self.cache.absolute()
        base = os.environ.get("XDG_CACHE_HOME", "")
        try:
            return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "reelfind" / "playback"
        except RuntimeError:
            return None

    @model_validator(mode="after")
    def _proxy_is_complete(self) -> Self:
        if self.auth == "proxy":
            missing = [
                variable_of(name)
                for name in ("auth_header", "auth_proxies", "auth_users")
                if not getattr(self, name)
            ]
            if missing:
                raise ValueError(f"auth proxy needs {missing[0]}: see deploy/operations.md, Access")
        return self

    @property
    def state_folder(self) -> Path:
        """The folder for what the service itself keeps."""
        if self.state is not None:
            return self.state.absolute()
        library = self.library.absolute()
        home = state_folder() if address_of(library) else None
        # The working folder of an address lies in a cache, which is no place for keys.
        return home / "services" / library.parent.name if home else library.with_name(f"{library.name}-state")

    @property
    def audit_file(self) -> Path | None:
        """The file of the audit log; None: none is written."""
        if self.audit_log is not None:
            return self.audit_log
        return None if self.auth == "none" else self.state_folder / "audit.jsonl"

    @property
    def row_cache_bytes(self) -> int:
        """What the rows that are kept in memory may take, in bytes."""
        return self.row_cache_mb << 20

    def deadline_seconds(self, asked_ms: int | None) -> float:
        """How long a request may take that asks for this deadline; None: for the default one."""
        return min(self.deadline_ms if asked_ms is None else asked_ms, self.max_deadline_ms) / 1000


def variable_of(setting: str) -> str:
    """The name of a setting's environment variable."""
    return f"{ENV_PREFIX}{setting.upper()}"


def how_to_make_a_key(settings: Settings) -> str:
    """The command that makes the first key of a service with these settings."""
    return f"reelfind keys create --scope admin --state {shlex.quote(os.fspath(settings.state_folder))}"


def check_environment(environment: Mapping[str, str] | None = None) -> None:
    """Refuse variables with our prefix that nothing reads: otherwise a misspelt setting would be ignored.

    Raises:
        InputError: there are such variables; names each, and the variable whose name is nearest.
    """
    known_names = [variable_of(name).removeprefix(ENV_PREFIX) for name in Settings.model_fields]
    known_names += [name.removeprefix(ENV_PREFIX) for name in OTHER_VARIABLES]
    messages = []
    for variable in sorted(os.environ if environment is None else environment):
        # pydantic reads variables in upper and lower case.
        name = variable.upper().removeprefix(ENV_PREFIX)
        if name != variable.upper() and name not in known_names:
            nearest = difflib.get_close_matches(name, known_names, n=1)
            remedy = f"did you mean {ENV_PREFIX}{nearest[0]}?" if nearest else "unset it"
            messages.append(f"{variable} is not a setting: {remedy}")
    if messages:
        raise InputError("; ".join(messages))


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Load the settings from `flags` (those that are not None), the environment and the defaults.

    Raises:
        QueryError: a value is invalid; names its flag or variable and what is allowed.
    """
    set_flags = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**set_flags)
    except ValidationError as error:
        lines = []
        for issue in error.errors(include_url=False):
            name = str(issue["loc"][0]) if issue["loc"] else ""
            if not name:
                lines.append(issue["msg"].removeprefix("Value error, "))
                continue
            option = _OPTION_OF.get(name, f"--{name.replace('_', '-')}")
            source = option if name in set_flags else variable_of(name)
            message = issue["msg"].removeprefix("Value error, ")
            lines.append(f"{source} is {issue['input']!r}: {message[:1].lower()}{message[1:]}")
        raise QueryError("; ".join(lines)) from None


_HEADER = """\
# Settings

Generated by `python -m service.settings > deploy/settings.md`; a test checks that this file is up to date.

Each setting is an environment variable. Those that `reelfind serve --help` lists are also options, which win
over the variable. If a variable begins with `REELFIND_` and is in neither table, every command ends with
exit code 2.

| Variable | Default | Meaning |
|---|---|---|
"""


_OTHER_HEADER = """
Variables that are not settings:

| Variable | Meaning |
|---|---|
"""


def settings_table() -> str:
    """A Markdown page of all settings (`Settings`) and other variables (`OTHER_VARIABLES`)."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        if field.default_factory is not None:
            shown = "number of cores, but 16 to 32"
        elif default is None or default == ():
            shown = "empty"
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        rows.append(f"| `{variable_of(name)}` | {shown} | {field.description} |\n")
    others = [f"| `{name}` | {what} |\n" for name, what in OTHER_VARIABLES.items()]
    return _HEADER + "".join(rows) + _OTHER_HEADER + "".join(others)


if __name__ == "__main__":
    sys.stdout.write(settings_table())
