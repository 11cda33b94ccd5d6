"""
How a connection of redis-py's is made, for both shells: they pass its modules in, which are imported by them only.

Time-outs, retries, protocol and decoding are set here and rest on no default of the client library.
"""

from __future__ import annotations

import inspect
from typing import Any

from boundq._retry import Lost, is_max_clients
from boundq._target import Target

# What of a user's client, or of a URL's options, counts for a connection of our own.
_KEPT = {"host", "port", "path", "db", "username", "password", "credential_provider", "client_name", "socket_type"}
_KEPT_PREFIXES = ("ssl_", "socket_keepalive")


def make_connection(
    connections: Any, retry: Any, target: Target, address: tuple[str, int] | None, seconds: float
) -> Any:
    """
    A connection, not open yet.

    Args:
        connections: ``redis.connection`` or ``redis.asyncio.connection``.
        retry: A retry object of that kind, that does not retry.
        target: Where to; its host may be another by ``address``.
        seconds: For connecting and for each step of the introduction.
    """
    if target.kind == "client":
        given = target.client.connection_pool.connection_kwargs
        tls = "ssl" in target.client.connection_pool.connection_class.__name__.lower()
    else:
        given = connections.parse_url(target.url)
        tls = target.url.startswith("rediss")
    options = {name: value for name, value in given.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    if address is not None:
        options["host"], options["port"] = address
    if "driver_info" in inspect.signature(connections.AbstractConnection.__init__).parameters:
        options["driver_info"] = None
    else:  # redis-py before 7: the same switch had another name
        options["lib_name"] = options["lib_version"] = None
    if "path" in options:
        kind = connections.UnixDomainSocketConnection
    else:
        kind = connections.SSLConnection if tls else connections.Connection
        options["socket_connect_timeout"] = seconds
    return kind(**options, socket_timeout=seconds, decode_responses=False, protocol=2, retry=retry)


def lost_connecting(error: BaseException) -> Lost:
    """Why there is no connection, out of redis-py's exception; nothing of a call was sent."""
    kinds = {kind.__name__ for kind in (*type(error).__mro__, type(error.__context__))}
    text = str(error)
    if "AuthenticationError" in kinds or text.startswith(("NOAUTH", "WRONGPASS")):
        reason = "auth"
    elif "NoPermissionError" in kinds:
        reason = "no_permission"
    elif "BusyLoadingError" in kinds:
        reason = "loading"
    elif is_max_clients(text):
        reason = "max_clients"
    elif "TimeoutError" in kinds:
        reason = "timeout"
    elif "ConnectionResetError" in kinds or "closed by server" in text.lower():
        reason = "reset"
    else:
        reason = "refused"
    return Lost(reason, False, text)


def is_foreign(target: Target) -> bool:
    """Whether the user's client is none of redis-py's real ones (fakeredis): it has to do the talking itself."""
    return target.kind == "client" and not target.client.connection_pool.connection_class.__module__.startswith(
        "redis."
    )
