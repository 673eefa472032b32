"""Errors of the API, with the fields of their HTTP responses and stream events."""

import msgspec


class ApiError(Exception):
    """OpenAI's error object with its HTTP status. `param` names the invalid field of the request."""

    status = 500
    type = "server_error"
    code: str | None = "server_error"
    fault: str | None = None
    """Code for the response's extensions, where the code in stream events is less precise."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, reason: str | None = None
    ) -> None:
        """`reason`: name of the error in the log and the metrics; None: its code, or its type."""
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.reason = reason or self.code or self.type

    @property
    def event_code(self) -> str | None:
        """Code in stream events, whose types in the official client allow certain codes only."""
        return self.code

    @property
    def summary(self) -> str:
        """Code and field for the log. The message may quote the request, so it is left out."""
        return f"{self.reason}{f' ({self.param[:100]!r})' if self.param else ''}"

    def body(self) -> bytes:
        payload = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": payload})


class InvalidRequest(ApiError):
    """The request is invalid."""

    status = 400
    type = "invalid_request_error"
    code: str | None = None

    @property
    def event_code(self) -> str | None:
        return self.code or "invalid_prompt"


class Malformed(InvalidRequest):
    """The input is not an HTTP request."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class GrammarMismatch(InvalidRequest):
    """The model's output no longer matches its grammar.

    A retry would fail again. The code is one that the official client's types allow in `response.failed`.
    """

    code = "invalid_prompt"


class NotFound(InvalidRequest):
    status = 404
    code = "not_found"


class MethodNotAllowed(InvalidRequest):
    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTimeout(InvalidRequest):
    status = 408
    code = "request_timeout"


class BodyTooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"


class EntryTooLarge(BodyTooLarge):
    """A response or conversation would be larger than the limit of the whole store, so a retry would fail again."""

    @property
    def event_code(self) -> str | None:
        return "invalid_prompt"


class UnsupportedEncoding(InvalidRequest):
    status = 415
    code = "unsupported_content_encoding"


class UnsupportedMediaType(InvalidRequest):
    status = 415
    code = "unsupported_media_type"


class UpgradeRequired(InvalidRequest):
    """The request must switch to WebSocket (RFC 9110, 15.5.22)."""

    status = 426
    code = "upgrade_required"


class Unauthorized(InvalidRequest):
    """The API key is missing or unknown."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class ForeignOrigin(InvalidRequest):
    """A web page of another origin sent the request."""

    status = 403
    type = "permission_error"
    code = "foreign_origin"


class Misdirected(InvalidRequest):
    """The request names another server as its host (RFC 9110, 15.5.20)."""

    status = 421
    code = "misdirected_request"


class ConnectorFailed(InvalidRequest):
    """A server that the request names, such as an MCP server, does not work.

    Status, type and code are OpenAI's. A later retry may work.
    """

    status = 424
    type = "external_connector_error"
    code = "http_error"
    fault = "connector_failed"

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message, param=param, reason=self.fault)

    @property
    def event_code(self) -> str | None:
        return ApiError.code


class Unavailable(ApiError):
    """The server cannot accept the request now; a later retry may work."""

    status = 503
    code = "unavailable"
    retry_after = 1
    """Seconds until a retry."""

    @property
    def event_code(self) -> str | None:
        return ApiError.code


class ServerBusy(Unavailable):
    """The queue is full, or the client's share of it."""

    code = "server_busy"

    def __init__(self, message: str, *, retry_after: int, reason: str) -> None:
        """`reason`: `queue_full` or `key_share`."""
        super().__init__(message, reason=reason)
        self.retry_after = retry_after
