"""Where the server is: URLs of every kind, and that no password shows anywhere."""

from __future__ import annotations

import pickle
import traceback

import fakeredis
import pytest

from boundq import AsyncQueue, ConfigError, Queue
from boundq._target import DEFAULT_URL, target_of

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/0",
        f"redis://:{SECRET}@localhost:6379/3",
        f"rediss://user:{SECRET}@example.org:6380/0?ssl_cert_reqs=none",
        "unix:///run/redis.sock",
        f"unix://:{SECRET}@/run/redis.sock?db=2",
        "redis://[::1]:7000/1",
    ],
)
def test_single_server(url: str) -> None:
    """``redis:// rediss:// unix://`` are kept as they are."""
    target = target_of(url)
    assert (target.kind, target.url, target.nodes) == ("single", url, ())


def test_sentinel() -> None:
    """Sentinels, the primary's name, the database, and the credentials for the primary."""
    target = target_of(f"redis+sentinel://ada:{SECRET}@one:26380,two,[::1]:26381/my-primary/3?sentinel_password=x")
    assert (target.kind, target.service) == ("sentinel", "my-primary")
    assert target.nodes == (("one", 26380), ("two", 26379), ("::1", 26381))
    assert target.url == f"redis://ada:{SECRET}@localhost/3?sentinel_password=x"
    assert target_of("rediss+sentinel://one/p").url == "rediss://localhost/0"


def test_cluster() -> None:
    """Nodes to ask first; the database is 0."""
    target = target_of(f"rediss+cluster://:{SECRET}@one:7000,two")
    assert (target.kind, target.nodes) == ("cluster", (("one", 7000), ("two", 6379)))
    assert target.url == f"rediss://:{SECRET}@localhost/0"


def test_embedded() -> None:
    """Kept for the embedded server's own reader."""
    assert target_of("embedded:///var/lib/q").kind == "embedded"


def test_client() -> None:
    """A redis-py client is a target; nothing is sent by asking."""
    client = fakeredis.FakeRedis()
    assert target_of(client).client is client


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is ``BOUNDQ_URL``, then the local default; an empty variable is none."""
    monkeypatch.delenv("BOUNDQ_URL", raising=False)
    assert target_of(None).url == DEFAULT_URL
    monkeypatch.setenv("BOUNDQ_URL", "redis://elsewhere:1234/5")
    assert target_of(None).url == "redis://elsewhere:1234/5"
    monkeypatch.setenv("BOUNDQ_URL", "")
    assert target_of(None).url == DEFAULT_URL


BAD = [
    "",
    "localhost",
    "http://localhost",
    f":{SECRET}@localhost",
    f"{SECRET}://localhost",
    f"redis://:{SECRET}@localhost:port/0",
    f"redis://:{SECRET}@localhost:99999/0",
    f"redis://:{SECRET}@localhost/db",
    f"redis://:{SECRET}@[::1/0",
    f"redis:{SECRET}",
    f"redis://:{SECRET}@localhost/0?socket_timeout={SECRET}",
    f"redis+sentinel://:{SECRET}@one:26379",
    f"redis+sentinel://:{SECRET}@one:26379/primary/db",
    f"redis+sentinel://:{SECRET}@one:x/primary",
    f"redis+sentinel://:{SECRET}@/primary",
    f"redis+cluster://:{SECRET}@one:7000/1",
    f"redis+cluster://:{SECRET}@one:7000,",
    "redis+cluster://",
]


@pytest.mark.parametrize("url", BAD)
def test_url_that_makes_no_sense(url: str) -> None:
    """A `ConfigError` when the queue is declared, not another error at its first call; it does not repeat the URL."""
    with pytest.raises(ConfigError) as raised:
        Queue("q", url)
    shown = "".join(traceback.format_exception(raised.value)[-1:]) + repr(raised.value) + str(raised.value)
    assert SECRET not in shown
    chain: BaseException | None = raised.value.__cause__
    while chain is not None:
        assert SECRET not in str(chain), "the traceback shows it"
        chain = chain.__cause__


def test_scheme_in_capitals() -> None:
    """A scheme's case does not matter: either it works, or it is refused at once."""
    from boundq._connect import make_connection

    try:
        target = target_of("REDIS://localhost:1/0")
    except ConfigError:
        return
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    make_connection(redis.connection, Retry(NoBackoff(), 0), target, None, 1.0)


@pytest.mark.parametrize(
    "thing", [5, object(), b"redis://localhost", ["redis://localhost"]], ids=lambda one: type(one).__name__
)
def test_what_is_no_target(thing: object) -> None:
    """Neither URL nor client."""
    with pytest.raises(ConfigError):
        target_of(thing)


@pytest.mark.parametrize("kind", [Queue, AsyncQueue])
@pytest.mark.parametrize("scheme", ["redis", "rediss+sentinel", "redis+cluster"])
def test_password_is_never_shown(kind: type, scheme: str) -> None:
    """No repr or str of anything that a user holds has the password in it (R-154)."""
    queue = kind("q", f"{scheme}://ada:{SECRET}@localhost:6379/" + ("primary" if "sentinel" in scheme else "0"))
    task = queue.task(name="t")(lambda: None)
    things = [queue, queue._target, task, queue.limits, queue.tasks, queue._core, queue._target[:1], (queue, task)]
    for thing in things:
        for text in (repr(thing), str(thing), f"{thing}"):
            assert SECRET not in text
    if kind is Queue:
        assert SECRET not in repr(queue._hub)


def test_password_is_not_in_connection_errors() -> None:
    """A refused connection names the queue, not the password; nor does its pickle."""
    queue = Queue("q", f"redis://ada:{SECRET}@127.0.0.1:1/0", deadline=0.2)
    from boundq import Unavailable

    with pytest.raises(Unavailable) as raised:
        queue.stats()
    error: BaseException | None = raised.value
    assert (raised.value.outcome, raised.value.reason) == ("not_sent", "refused")
    assert SECRET.encode() not in pickle.dumps(raised.value)
    while error is not None:
        assert SECRET not in str(error) + repr(error)
        error = error.__cause__ or error.__context__
