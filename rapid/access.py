"""Who may change things over HTTP, and how much a stranger may send.

Reading is open to everybody. A change needs one of two things: a token, compared in constant time, or the name
that an authenticating proxy vouches for, in a header that is believed only from that proxy's address. With
neither configured every change is refused. No cross-origin header is ever sent, so that a page of another site
cannot read an answer; and a change that a proxy vouches for has to come from a page of ours, because a browser
sends the proxy's cookies along with anybody's form.
"""

import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapid.errors import ConfigurationError, NotFoundError, RapidError, RefusedError, Retry, StoreError

log = structlog.get_logger()

MAX_BODY_BYTES = 1024 * 1024
"""Ten thousand exposure ids and all their facts are a quarter of this; nothing we take is larger."""

MIN_TOKEN = 8
"""A shorter token is a mistake: an empty line, a placeholder."""

ANONYMOUS = "anonymous"

USER_HEADER = "X-Rapid-User"
"""By this, holders of a shared token may say who of them it is. Goes into the audit log as said, not as proven."""

_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]")

_bearer = HTTPBearer(auto_error=False, description="The installation's token. Not needed behind its auth proxy.")


class UnauthorizedError(RefusedError):
    """No credentials, or wrong ones."""

    code = "unauthorized"


class ForbiddenError(RefusedError):
    """Nobody may do this here, or not from there."""

    code = "forbidden"


class ConflictError(RefusedError):
    """Right in itself, but not now: somebody else was first, or something under way forbids it."""

    code = "conflict"


class PreconditionError(ConflictError):
    """What the caller has seen is no longer so."""

    code = "version_changed"


class BadRequestError(RapidError):
    """What was sent is not valid; ``field`` names where."""

    code = "bad_request"

    def __init__(self, field: str, reason: str, **facts: Any) -> None:
        super().__init__(f"{field}: {reason}" if field else reason, field=field, **facts)
        self.field = field


_STATUS: tuple[tuple[type[RapidError], int], ...] = (
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (PreconditionError, 412),
    (RefusedError, 409),
    (BadRequestError, 422),
    (StoreError, 503),
)


def status_of(error: RapidError) -> int:
    """Return the HTTP status that an error is answered with."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return 503 if error.retry is Retry.LATER else 500


class ErrorFacts(BaseModel):
    """What went wrong."""

    code: str = Field(description="Stable word for programs.")
    message: str = Field(description="One sentence for a person.")
    field: str | None = Field(default=None, description="Dotted path of the value that is not valid.")


class ErrorAnswer(BaseModel):
    """Body of every answer that is an error."""

    error: ErrorFacts


def error_document(code: str, message: str, field: str | None = None) -> dict[str, Any]:
    """Return the body of an answer that is an error."""
    # What is repeated of the input may hold half a character, which no encoding has.
    message = message.encode(errors="replace").decode()
    field = None if field is None else field.encode(errors="replace").decode()
    return {"error": {"code": code, "message": message, "field": field}}


class AccessSettings(BaseModel):
    """Who is believed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: SecretStr | None = Field(
        default=None, description="Token, or several, one a line: name and token with a space between."
    )
    proxy_header: str = Field(default="", description="Header in which an auth proxy names the user; none if empty.")
    trusted_proxies: str = Field(
        default="", description="Addresses or networks of that proxy, comma separated: 10.0.3.7, 10.1.0.0/16."
    )


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    Attributes
    ----------
    name
        For the audit log.
    how
        ``token``, ``proxy`` or ``anonymous``.
    """

    name: str
    how: str

    @property
    def may_change(self) -> bool:
        """Whether changes are open to them."""
        return self.how != ANONYMOUS


class AccessView(BaseModel):
    """What the caller may do."""

    principal: str = Field(description="Who the caller is taken for.")
    may_change: bool = Field(description="Whether this caller may change things.")
    ways: list[str] = Field(description="Ways to be believed that are configured here: token, proxy.")


class Access:
    """Tells who asks, and refuses changes to those who may not.

    Parameters
    ----------
    settings
        Who is believed.

    Raises
    ------
    ConfigurationError
        Raised for a token that is too short, a header name that is none, a proxy header without addresses to
        believe it from, or an address that is none.

    Examples
    --------
    As a dependency of a route: ``who: Annotated[Principal, Depends(access.may_change)]``.
    """

    def __init__(self, settings: AccessSettings | None = None) -> None:
        settings = settings or AccessSettings()
        self._tokens = _read_tokens(settings.token)
        self._header = settings.proxy_header.strip()
        if self._header and not _HEADER_NAME.fullmatch(self._header):
            raise ConfigurationError("proxy_header", f"{self._header!r} is no header name")
        self._proxies = _read_networks(settings.trusted_proxies)
        if self._header and not self._proxies:
            raise ConfigurationError(
                "trusted_proxies", f"must name the proxy's addresses, or anybody could send {self._header}"
            )

    @property
    def ways(self) -> list[str]:
        """Ways to be believed that are configured."""
        return (["token"] if self._tokens else []) + (["proxy"] if self._header else [])

    def who(self, request: Request) -> Principal:
        """Return who asks.

        Raises
        ------
        UnauthorizedError
            Raised if credentials were given and are wrong.
        """
        # The proxy first: some pass their own bearer token on to us.
        name = self._name_from_proxy(request)
        if name:
            return Principal(name, "proxy")
        given = request.headers.get("authorization")
        if given is None:
            return Principal(ANONYMOUS, ANONYMOUS)
        scheme, _, secret = given.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise UnauthorizedError("the Authorization header must be: Bearer TOKEN")
        owner = self._owner_of(secret.strip())
        if owner is None:
            log.warning("wrong token", client=request.client.host if request.client else "", path=request.url.path)
            raise UnauthorizedError("wrong token")
        said = _clean(request.headers.get(USER_HEADER, ""))
        return Principal(f"{said} ({owner})" if said else owner, "token")

    def may_change(
        self,
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> Principal:
        """Return who asks, if they may change things: the dependency of every route that does.

        Raises
        ------
        UnauthorizedError
            Raised if credentials are missing or wrong.
        ForbiddenError
            Raised if no way to be believed is configured, or if a page of another site sent the request.
        """
        if not self.ways:
            raise ForbiddenError(
                "changes are switched off here: no token is configured (RAPID_TOKEN or RAPID_TOKEN_FILE)"
            )
        who = self.who(request)
        if not who.may_change:
            raise UnauthorizedError("a change needs a token: send the header Authorization: Bearer TOKEN")
        if who.how == "proxy" and _is_from_elsewhere(request):
            raise ForbiddenError("this request was sent by a page of another site")
        return who

    def routes(self) -> APIRouter:
        """Return ``GET /api/access``: what the caller may do."""
        router = APIRouter()

        @router.get("/api/access", tags=["system"], summary="What you may do here", responses=ACCESS_ERRORS)
        def access(
            request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None
        ) -> AccessView:
            """Return who the caller is taken for; a wrong token is an error."""
            who = self.who(request)
            return AccessView(principal=who.name, may_change=who.may_change, ways=self.ways)

        return router

    def _owner_of(self, secret: str) -> str | None:
        # Digests have one length, and every token is compared: the time tells nothing of either.
        digest = hashlib.sha256(secret.encode()).digest()
        found = [owner for owner, known in self._tokens if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    def _name_from_proxy(self, request: Request) -> str:
        if not self._header or request.client is None:
            return ""
        names = request.headers.getlist(self._header)
        if not names:
            return ""
        try:
            address: Any = ipaddress.ip_address(request.client.host)
        except ValueError:
            return ""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if not any(address in network for network in self._proxies):
            log.warning("proxy header from an address that is not trusted", client=request.client.host)
            return ""
        # A second header would be one that the proxy let through from outside.
        return _clean(names[0]) if len(names) == 1 else ""


ACCESS_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "The token is missing or wrong."},
}
CHANGE_ERRORS: dict[int | str, dict[str, Any]] = ACCESS_ERRORS | {
    400: {"model": ErrorAnswer, "description": "The body is no JSON."},
    403: {
        "model": ErrorAnswer,
        "description": "No token is configured, or the request came from a page of another site.",
    },
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    422: {"model": ErrorAnswer, "description": "Something is not valid; `field` says what."},
}
"""Answers that every route with `Access.may_change` can give."""


class BodyLimit:
    """Refuses bodies larger than a limit, also those that do not say how large they are. Plain ASGI."""

    status: ClassVar[int] = 413

    def __init__(self, app: ASGIApp, *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting what it carries."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        async def receive_refused() -> Message:
            raise self._too_large()

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        is_too_large = declared.isdigit() and int(declared[:20]) > self._max_bytes
        # Refused where the body is read, so that the answer has the form of all others.
        await self._app(scope, receive_refused if is_too_large else receive_counted, send)

    def _too_large(self) -> HTTPException:
        return HTTPException(self.status, f"the body is larger than {self._max_bytes} bytes", {"Connection": "close"})


def _read_tokens(secret: SecretStr | None) -> list[tuple[str, bytes]]:
    tokens: list[tuple[str, bytes]] = []
    for line in secret.get_secret_value().splitlines() if secret is not None else []:
        words = line.split()
        if not words or line.lstrip().startswith("#"):
            continue
        if len(words) > 2:
            raise ConfigurationError("token", "a line must be a token, or a name and a token")
        if len(words[-1]) < MIN_TOKEN:
            raise ConfigurationError("token", f"a token must have at least {MIN_TOKEN} characters")
        tokens.append((_clean(words[0]) if len(words) == 2 else "token", hashlib.sha256(words[-1].encode()).digest()))
    if secret is not None and not tokens and secret.get_secret_value():
        raise ConfigurationError("token", "holds no token")
    return tokens


def _read_networks(text: str) -> list[Any]:
    networks = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(part, strict=False))
        except ValueError as error:
            raise ConfigurationError("trusted_proxies", f"{part!r} is no address or network") from error
    return networks


def _clean(name: str) -> str:
    """Return a name as it may stand in a log: printable, on one line, not endless."""
    return _UNPRINTABLE.sub("", name).strip()[:64]


def _is_from_elsewhere(request: Request) -> bool:
    """Whether a browser says that another site's page sent this. Programs that are no browsers say nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return False
    hosts = {request.headers.get("host", ""), request.headers.get("x-forwarded-host", "")}
    return urlsplit(origin).netloc not in hosts
