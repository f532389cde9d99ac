"""The settings: one frozen tree, built once at the entry point. The keys are those of ``docs/configuration.md``."""

import re
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agentscope.runtime.settings._access import check_keys, check_tokens, known_algorithm, not_empty, written_token
from agentscope.runtime.settings._platform import base_url, check_one_login, path_segment, sendable_token

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
NAME_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
# An empty secret is a variable that was never filled in: better said at start than by a vendor's 401.
Secret = Annotated[SecretStr, Field(min_length=1)]

# The messages of validators are shown to users as they are, and must not hold the value. Those of a whole section
# begin with the key they are about: "model: required …".


def _absolute_http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("must start with http:// or https://")
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0 and not any(character.isspace() for character in value)
    except ValueError:
        usable = False
    if not usable:
        # Not from the parser's own error: that quotes the value, which may hold a password.
        raise ValueError("is not a URL; write it like https://host:8000/path")
    return value


def _module_and_class(value: str) -> str:
    module, _, name = value.partition(":")
    if not name.isidentifier() or not all(step.isidentifier() for step in module.split(".")):
        raise ValueError("must name a module and a class in it, like app:App")
    return value


def _regular_expression(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        raise ValueError(
            "is not a regular expression; put a backslash before a character that stands for itself"
        ) from None
    return value


def _part_of_a_tool_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]*", value) is None:
        raise ValueError("may hold letters, digits, _ and - alone: vendors refuse other names of tools")
    return value


def _path_or_http_url(value: str | None) -> str | None:
    return value if value is None or (value and "://" not in value) else _absolute_http_url(value)


def _origin(value: str) -> str:
    scheme, _, host = value.partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme)
    # What would never be equal to what a browser sends is a mistake.
    if value != "*" and (port is None or host.endswith(port) or re.fullmatch(r"[^\s/?#@*A-Z]+", host) is None):
        raise ValueError("must be an origin as browsers send it, like https://app.example.com, or * for any")
    return value


Origin = Annotated[str, AfterValidator(_origin)]
HttpUrl = Annotated[str, AfterValidator(_absolute_http_url)]
ModuleAndClass = Annotated[str, AfterValidator(_module_and_class)]


class _Section(BaseModel):
    # URLs may carry a password and are left out of the repr as well.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SecretFile(_Section):
    """What may stand in the place of a secret: ``{file: /run/secrets/openai}``."""

    file: str


class ScriptedToolCall(_Section):
    """A tool call that an offline model makes."""

    name: str
    input: dict[str, Any] = {}


_VENDORS = frozenset({"openai", "anthropic", "dashscope", "gemini", "ollama"})


class ScriptLine(_Section):
    """One rule of an offline model: the first whose ``match`` is found in the last message is what it says.

    ``match`` is a regular expression; a rule without one always matches.
    """

    match: Annotated[str, AfterValidator(_regular_expression)] | None = None
    reply: str = ""
    tool_calls: tuple[ScriptedToolCall, ...] = ()


class ModelSettings(_Section):
    """``models.<slot>``."""

    provider: str
    model: str | None = None
    api_key: Secret | None = None
    base_url: Annotated[HttpUrl | None, Field(repr=False)] = None
    stream: bool = True
    generate_kwargs: Annotated[dict[str, Any], Field(repr=False)] = {}
    client_kwargs: Annotated[dict[str, Any], Field(repr=False)] = {}
    offline_without_key: bool = False
    script: tuple[ScriptLine, ...] = ()
    chunk_size: Annotated[int, Field(ge=1)] = 8
    delay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _names_a_model(self) -> "ModelSettings":
        # Of another provider only its adapter knows whether it needs one, or that there is no such provider.
        if self.model is None and self.provider in _VENDORS:
            raise ValueError(f"model: required for {self.provider}; set it to the vendor's model name")
        return self


class McpServerSettings(_Section):
    """``mcp_servers.<name>``."""

    transport: Literal["sse", "streamable_http", "stdio"]
    url: Annotated[HttpUrl | None, Field(repr=False)] = None
    headers: dict[str, SecretStr] = {}
    command: str | None = None
    args: Annotated[tuple[str, ...], Field(repr=False)] = ()
    env: dict[str, SecretStr] = {}
    cwd: Path | None = None
    timeout: Seconds = 30.0
    sse_read_timeout: Seconds = 300.0
    required: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    prefix: Annotated[str, AfterValidator(_part_of_a_tool_name)] = ""

    @model_validator(mode="after")
    def _says_where(self) -> "McpServerSettings":
        needed, foreign = ("command", "url") if self.transport == "stdio" else ("url", "command")
        if getattr(self, needed) is None:
            raise ValueError(f"{needed}: required for transport {self.transport}")
        if getattr(self, foreign) is not None:
            raise ValueError(f"{foreign}: not used by transport {self.transport}; remove it")
        return self


class SessionSettings(_Section):
    """``session``. ``url`` None means the file ``.agentscope/sessions.db`` in the project."""

    backend: str = "sql"
    url: Secret | None = None
    auto_migrate: bool | None = None
    on_conflict: Literal["queue", "reject", "replace"] = "queue"
    queue_timeout: Seconds = 60.0
    max_resident: Annotated[int, Field(ge=1)] = 10_000
    ttl: Seconds | None = None
    auto_save: bool = False
    lease_ttl: Seconds = 15.0
    owner_claim: Annotated[str, AfterValidator(not_empty)] | None = None
    durability: Literal["full", "normal"] = "full"


class JwtSettings(_Section):
    """``server.auth.jwt``. ``jwks`` is a URL or a path; None for the issuer or the audience means any."""

    algorithms: tuple[Annotated[str, AfterValidator(known_algorithm)], ...]
    key: Secret | None = None
    jwks: Annotated[str | None, AfterValidator(_path_or_http_url), Field(repr=False)] = None
    # Empty is a variable that was never filled in, and must not turn the check off.
    issuer: Annotated[str, AfterValidator(not_empty)] | None = None
    audience: Annotated[str, AfterValidator(not_empty)] | None = None
    leeway: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _fits_together(self) -> "JwtSettings":
        check_keys(self.algorithms, self.key, self.jwks)
        return self


class AuthSettings(_Section):
    """``server.auth``. With nothing of it set, everyone may call."""

    tokens: tuple[Annotated[Secret, AfterValidator(written_token)], ...] = ()
    tokens_file: Path | None = None
    jwt: JwtSettings | None = None
    provider: Annotated[str, AfterValidator(not_empty)] | None = None
    options: Annotated[dict[str, Any], Field(repr=False)] = {}

    @property
    def is_on(self) -> bool:
        """Whether callers must say who they are."""
        return self.provider is not None or self._has_bearer

    @property
    def _has_bearer(self) -> bool:
        return bool(self.tokens) or self.tokens_file is not None or self.jwt is not None

    @model_validator(mode="after")
    def _protects(self) -> "AuthSettings":
        if "tokens" in self.model_fields_set and not self.tokens:
            # A list that lost its tokens must not open the server to everyone.
            raise ValueError("tokens: is empty; give it a token, or remove the key")
        if self.provider is not None and self._has_bearer:
            raise ValueError("provider: decides alone who may call; remove it, or tokens, tokens_file and jwt")
        if self.provider is None and self.options:
            raise ValueError("options: are for a provider, and none is named")
        check_tokens(self.tokens)
        return self


class ServerSettings(_Section):
    """``server``. Times are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Field(ge=1)] = 1
    max_body_bytes: Annotated[int, Field(ge=1)] = 10 * 1024 * 1024
    max_concurrent_invocations: Annotated[int, Field(ge=1)] = 256
    max_queued: Annotated[int, Field(ge=0)] = 1024
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    request_timeout: Seconds | None = None
    keepalive_interval: Seconds = 15.0
    on_disconnect: Literal["cancel", "continue"] = "cancel"
    shutdown_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    replay_ttl: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    auth: AuthSettings = AuthSettings()
    cors_origins: tuple[Origin, ...] | None = None
    metrics: bool = False
    debug: bool = False

    @model_validator(mode="after")
    def _protects_when_asked(self) -> "ServerSettings":
        if "auth" in self.model_fields_set and not self.auth.is_on:
            # Whoever wrote it, and lost what was in it, must not have an open server.
            raise ValueError("auth: is empty; set tokens, tokens_file, jwt or provider, or remove the key")
        return self


class PlatformSettings(_Section):
    """``platform``. Without an endpoint there is no platform to speak to."""

    endpoint: Annotated[HttpUrl | None, AfterValidator(base_url), Field(repr=False)] = None
    provider: Annotated[str, AfterValidator(not_empty)] = "http"
    instance_id: Annotated[str, AfterValidator(path_segment)] = Field(default_factory=socket.gethostname)
    token: Annotated[Secret, AfterValidator(sendable_token)] | None = None
    # Not so often that it is all that the platform does, nor so rarely that an instance seems to be gone.
    heartbeat_interval: Annotated[float, Field(ge=0.01, le=24 * 3600, allow_inf_nan=False)] = 30.0

    @model_validator(mode="after")
    def _logs_in_once(self) -> "PlatformSettings":
        check_one_login(self.endpoint, self.token)
        return self


class TracingSettings(_Section):
    """``tracing``. Without an endpoint there are no traces."""

    endpoint: Annotated[HttpUrl | None, Field(repr=False)] = None
    headers: dict[str, SecretStr] = {}
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    record_contents: bool = False


class Settings(BaseSettings):
    """The whole tree. ``load_settings`` builds it; a test may build one from keyword arguments alone."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix="AGENTSCOPE_",
        env_nested_delimiter="__",
    )

    app: ModuleAndClass = "app:App"
    models: dict[Name, ModelSettings] = {}
    mcp_servers: dict[Name, McpServerSettings] = {}
    session: SessionSettings = SessionSettings()
    server: ServerSettings = ServerSettings()
    platform: PlatformSettings = Field(default_factory=PlatformSettings)
    tracing: TracingSettings = TracingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the constructor is given: ``load_settings`` reads the other sources, and keeps where they are."""
        return (init_settings,)
