"""
How a connection of redis-py's is made, for both shells: they pass its modules in, which are imported by them only.

Time-outs, retries, protocol and decoding are set here and rest on no default of the client library.
"""

from __future__ import annotations

import inspect
from typing import Any

from boundq._call import pack
from boundq._retry import Lost
from boundq._target import Target
from boundq.errors import ConfigError

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
        seconds: For connecting.
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
        options.pop("path", None)
    if "path" in options:
        kind = connections.UnixDomainSocketConnection
        # Older redis-py has it for TCP only.
        if "socket_connect_timeout" in inspect.signature(connections.AbstractConnection.__init__).parameters:
            options["socket_connect_timeout"] = seconds
    else:
        kind = connections.SSLConnection if tls else connections.Connection
        options["socket_connect_timeout"] = seconds
    connection = kind(
        **options,
        socket_timeout=seconds,
        decode_responses=False,
        protocol=2,
        retry=retry,
        redis_connect_func=_say_nothing,
    )
    # redis-py's asyncio connection to a unix socket introduces itself whatever redis_connect_func says.
    if inspect.iscoroutinefunction(connection.on_connect):
        connection.on_connect = _say_nothing_later
    return connection


def _say_nothing(connection: Any) -> None:
    """redis-py's introduction takes a round trip, and a time-out of its own, for each word. Ours: `introduction`."""
    del connection


async def _say_nothing_later() -> None:
    """The same, for where it is awaited."""


def introduction(connection: Any) -> list[bytes]:
    """
    What to say on a new connection: who we are, which database we want, and whether somebody is there.

    The last word makes a server that turns us away say why, in a reply: what it says of a first command that is a long
    one may be lost when it hangs up.
    """
    commands = []
    if connection.credential_provider:
        commands.append(pack(b"AUTH", *connection.credential_provider.get_credentials()))
    elif connection.password:
        user = (connection.username,) if connection.username else ()
        commands.append(pack(b"AUTH", *user, connection.password))
    if connection.client_name:
        commands.append(pack(b"CLIENT", b"SETNAME", connection.client_name))
    if connection.db:
        commands.append(pack(b"SELECT", connection.db))
    return [*commands, pack(b"PING")]


def lost_connecting(error: BaseException) -> Lost:
    """Why there is no connection; nothing of a call was sent."""
    kinds = {kind.__name__ for kind in (*type(error).__mro__, type(error.__context__))}
    if "TimeoutError" in kinds or "BlockingIOError" in kinds:
        return Lost("timeout", False, str(error))  # a full backlog too: it listens, and does not accept
    return Lost("reset" if "ConnectionResetError" in kinds else "refused", False, str(error))


def check_kind(client: Any, *, is_async: bool) -> None:
    """
    Whether a client that has to do the talking itself can do it here.

    Raises:
        ConfigError: It is of the other kind.
    """
    if inspect.iscoroutinefunction(type(client).execute_command) != is_async:
        wanted = "an asyncio one" if is_async else "one for threads"
        raise ConfigError(
            "url_or_client", type(client).__name__, f"this call needs {wanted}: give a client of that kind"
        )


def is_foreign(target: Target) -> bool:
    """Whether the user's client is none of redis-py's real ones (fakeredis): it has to do the talking itself."""
    return target.kind == "client" and not target.client.connection_pool.connection_class.__module__.startswith(
        "redis."
    )
