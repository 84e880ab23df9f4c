"""HTTP/1.1 message heads, as much as a file server needs (RFC 9112)."""

from __future__ import annotations

from http import HTTPStatus


class Refusal(Exception):
    """A request that is answered with an error status, after which the connection is closed."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


def parse_head(head: bytes) -> tuple[str, str, str, dict[str, str]]:
    """Method, target, version and headers (names in lower case) of a request head. Raises Refusal."""
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "malformed request line") from None
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"not HTTP/1.1 but {version!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        value = value.strip()
        if not colon or not name or name != name.strip() or headers.setdefault(name.lower(), value) != value:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"malformed or contradicting header: {line[:80]!r}")
    return method, target, version, headers


def body_length(headers: dict[str, str], limit: int) -> int:
    """The Content-Length of an upload. Raises Refusal without one, or when it is above `limit` bytes."""
    stated = headers.get("content-length", "")
    if "transfer-encoding" in headers or not stated:
        raise Refusal(HTTPStatus.LENGTH_REQUIRED, "PUT needs a Content-Length")
    if not (stated.isascii() and stated.isdigit()):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"malformed Content-Length {stated[:20]!r}")
    if len(stated) > 18 or int(stated) > limit:
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {limit} bytes are taken")
    return int(stated)
