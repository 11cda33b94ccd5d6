"""Where the server is: a URL, taken apart as far as boundq has to, or a client that the user made."""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from boundq.errors import ConfigError

DEFAULT_URL = "redis://localhost:6379/0"
_PLAIN = ("redis", "rediss", "unix")
_SCHEMES = (*_PLAIN, "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster", "embedded")


class Target(NamedTuple):
    """
    Args:
        kind: ``single sentinel cluster client``.
        url: For ``single``: the server's; otherwise one without a host, for user, password, db and options.
        nodes: Sentinels, or nodes of the cluster to ask first.
        service: The name of the primary that the sentinels watch.
        client: A redis-py client of the user's, sync or asyncio.
    """

    kind: str
    url: str = ""
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""
    client: Any = None

    def __repr__(self) -> str:  # a URL may hold a password
        return f"<Target {self.kind}>"


def target_of(url_or_client: Any) -> Target:
    """
    The target of a URL (None: ``BOUNDQ_URL``, then ``redis://localhost:6379/0``) or of a redis-py client.

    Starts nothing and connects to nothing.

    Raises:
        ConfigError: A URL that boundq does not understand. The text does not repeat it.
    """
    if isinstance(url_or_client, Target):
        return url_or_client
    if url_or_client is None:
        url_or_client = os.environ.get("BOUNDQ_URL") or DEFAULT_URL
    if not isinstance(url_or_client, str):
        if not hasattr(url_or_client, "connection_pool"):
            raise ConfigError("url_or_client", type(url_or_client).__name__, "give a URL or a redis-py client")
        return Target("client", client=url_or_client)
    scheme = url_or_client.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        # What stands before the colon may be a password that somebody forgot a scheme for: it is not shown.
        raise ConfigError("url", "***", f"the URL must begin with one of {known}")
    try:
        return _of_url(scheme, url_or_client)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("url", f"{scheme}://***", "host, port or database is not what it should be") from None


def _of_url(scheme: str, url: str) -> Target:
    if scheme == "embedded":
        return Target("embedded", url)
    parts = urlsplit(url)
    if scheme in _PLAIN:
        _check_plain(scheme, parts)
        return Target("single", scheme + url[len(scheme) :])
    tls, _, kind = scheme.partition("+")
    nodes = tuple(
        _node(node, 26379 if kind == "sentinel" else 6379) for node in parts.netloc.rpartition("@")[2].split(",")
    )
    path = [unquote(part) for part in parts.path.split("/") if part]
    service = ""
    if kind == "sentinel":
        if not path:
            raise ConfigError("url", f"{scheme}://***", "name the primary: redis+sentinel://host:26379/NAME/0")
        service = path.pop(0)
    db = path[0] if path else "0"
    if not db.isdigit() or (kind == "cluster" and db != "0"):
        raise ConfigError("url", f"{scheme}://***", "the database is a number, and 0 in a cluster")
    return Target(kind, _inner(tls, parts, db), nodes, service)


def _check_plain(scheme: str, parts: SplitResult) -> None:
    """redis-py would notice at the first call, or take database 0; we say so at the declaration."""
    if scheme == "unix":
        if not parts.path:
            raise ConfigError("url", "unix:***", "name the socket: unix:///path/to/socket")
    elif not parts.netloc or not (parts.path.strip("/") == "" or parts.path.strip("/").isdecimal()):
        raise ConfigError("url", f"{scheme}:***", f"write {scheme}://host:port/number")
    _ = parts.port  # raises ValueError on a port that is none
    for name, value in parse_qsl(parts.query):
        if name in ("db", "socket_timeout", "socket_connect_timeout", "max_connections") and not _is_number(value):
            raise ConfigError("url", f"{scheme}:***?{name}=...", "that option is a number")


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def _node(text: str, port: int) -> tuple[str, int]:
    found = urlsplit(f"//{text}")
    if not found.hostname:
        raise ValueError(text)
    return found.hostname, found.port or port


def _inner(scheme: str, parts: SplitResult, db: str) -> str:
    credentials = parts.netloc.rpartition("@")[0]
    query = urlencode(parse_qsl(parts.query), quote_via=quote)
    return f"{scheme}://{credentials + '@' if credentials else ''}localhost/{db}{'?' + query if query else ''}"
