"""The acts, in order."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TextIO

from rich.console import Console

from boundq import ConfigError, Server
from boundq._embedded import EmbeddedServer
from boundq.demo.bounded import BoundedArm
from boundq.demo.foreign import Neighbour
from boundq.demo.listqueue import ListArm
from boundq.demo.load import Answer, Arm, Crew, flood, steady
from boundq.demo.maildir import Maildir
from boundq.demo.picture import draw
from boundq.demo.plan import CAMPAIGNS, FAST, FULL, MIB, QUEUES, STUDIO, Plan
from boundq.demo.record import Record, new_id
from boundq.demo.render import Campaign, Message
from boundq.demo.stage import Show, Stage
from boundq.demo.verdict import judge
from boundq.demo.watch import Watch

__all__ = ["play"]

HELD, FAILED, INTERRUPTED = 0, 1, 130


def play(
    *,
    console: Console,
    picture: Path | None = Path("boundq-demo.svg"),
    mail: Path | None = None,
    fast: bool = False,
    json_to: TextIO | None = None,
) -> int:
    """
    Replay the incident on an embedded server of its own.

    Args:
        console: For the display and the verdict.
        picture: Where the SVG goes; None: nowhere.
        mail: An empty or new folder that keeps the Maildirs ``act-1``, ``act-2`` and ``act-3``; None: they are
            deleted.
        fast: Shorter acts on a smaller server.
        json_to: Gets the verdict as JSON, too.

    Returns:
        The exit code: 0 the verdict holds, 1 it does not, 130 interrupted.

    Raises:
        ConfigError: There is no server to start, or a path cannot be used.
    """
    if picture is not None and not _writable(picture):
        raise ConfigError("picture", str(picture), "cannot be written there")
    if mail is not None and mail.exists() and (not mail.is_dir() or any(mail.iterdir())):
        raise ConfigError("mail", str(mail), "name a new or an empty folder: the mails in it are counted")
    plan = FAST if fast else FULL
    began = time.monotonic()
    try:
        with EmbeddedServer(config={"maxmemory": plan.maxmemory}) as server:
            # Beside the server's files, so that they are removed with them however this process ends.
            theatre = _Theatre(server, mail or Path(server.folder) / "mail", plan, console)
            try:
                first, second, third = theatre.act_1(), theatre.act_2(), theatre.act_3()
            finally:
                theatre.close()
        verdict = judge(plan, first, second, third)
        verdict.show(console)
        if picture is not None:
            picture.write_text(draw(plan, first, second, verdict.sentences, theatre.version), encoding="utf-8")
    except KeyboardInterrupt:
        console.print("interrupted; the server is stopped", style="bold")
        return INTERRUPTED
    for name, path in (("Picture", picture), ("Mails", mail)):
        if path is not None:
            console.print(f"{name}: {path}", highlight=False, markup=False, soft_wrap=True)
    if json_to is not None:
        facts = {
            "server": theatre.version,
            "maxmemory": plan.maxmemory,
            "seconds": round(time.monotonic() - began, 1),
            "picture": str(picture) if picture is not None else None,
        }
        json_to.write(json.dumps(verdict.as_dict() | facts, indent=2) + "\n")
    return HELD if verdict.holds else FAILED


class _Theatre:
    """What the acts share: the server, the mails, the display."""

    def __init__(self, server: EmbeddedServer, mail: Path, plan: Plan, console: Console) -> None:
        self.plan = plan
        self._url = server.url
        self._server = Server(server.url)
        info = self._server.info("server")
        self.version = f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info['redis_version']}"
        self._mail = mail
        self._campaign = Campaign()
        self._stage = Stage(console, plan)
        self._neighbour = Neighbour(server.url)
        self._limits = {CAMPAIGNS: plan.campaigns, STUDIO: plan.studio}
        self._length = 0.0
        self._left: list[str] = []
        self._stage.say(
            f"{self.version}, maxmemory {plan.maxmemory // MIB} MiB, noeviction.\n"
            f"Queue studio: {plan.rate} test-sends a second, each rendered into a Maildir.\n"
            f"Queue campaigns: {plan.flooders} producers at full speed, 4 KiB a message, and no worker.\n"
        )

    def act_1(self) -> Record:
        """The ordinary list queue."""
        post = _Post(self._campaign, self._mail / "act-1")
        arm = ListArm(self._url, post.handle)
        try:
            with self._stage.act("Act 1 of 3: an ordinary list queue, without a bound") as show:
                record = Record(time.time())
                watch = Watch(self._server, arm, record, post.sent)
                self._load(1, arm, record, watch, show)
                # What Act 3 asks of boundq: a worker comes when the server is full to the last byte.
                with self._full_server(record, watch, show), Crew() as worker:
                    arm.stuck.clear()
                    arm.employ(worker, CAMPAIGNS, self.plan.workers)
                    self._go_on(
                        watch, show, "full to the last byte; a campaigns worker tries to drain", worker, self.plan.stuck
                    )
                    record.refused_claims = len(arm.stuck)
            self._close_books(record, arm, post)
        finally:
            arm.close()
        self._length = record.ended
        self._neighbour.clear()
        return record

    def act_2(self) -> Record:
        """boundq, under the same load."""
        size = int(self.plan.campaigns.max_bytes) // MIB
        post = _Post(self._campaign, self._mail / "act-2")
        arm = BoundedArm(self._url, self._limits, post.handle)
        try:
            with self._stage.act(f"Act 2 of 3: the same load on boundq; campaigns may hold {size} MiB") as show:
                record = Record(time.time())
                self._load(2, arm, record, Watch(self._server, arm, record, post.sent), show)
            self._close_books(record, arm, post)
            record.imbalance = sum(abs(arm.stats(queue).imbalance) for queue in QUEUES)
        finally:
            arm.close()
        self._left = record.held[CAMPAIGNS]
        return record

    def act_3(self) -> Record:
        """The server is filled by somebody else, and the queue drains all the same."""
        post = _Post(self._campaign, self._mail / "act-3")
        # Declared anew: a worker that comes to the server when it is full already.
        arm = BoundedArm(self._url, self._limits, post.handle)
        try:
            with self._stage.act("Act 3 of 3: the server is full; a campaigns worker drains") as show:
                record = Record(time.time(), carried={CAMPAIGNS: self._left})
                watch = Watch(self._server, arm, record, post.sent)
                show(watch.take(), "a neighbour fills the server")
                with self._full_server(record, watch, show), Crew() as worker:
                    for n in range(self.plan.knocks):
                        for queue in QUEUES:
                            message = self._messages(3, queue, 0)(n)
                            record.receipts[queue].note(message.id, arm.offer(queue, message))
                    arm.drain(worker, CAMPAIGNS, self.plan.workers)
                    note = "full to the last byte; the worker drains, the neighbour takes the room"
                    self._go_on(watch, show, note, worker, self.plan.drain, until=lambda: not worker.busy)
            self._close_books(record, arm, post)
            record.imbalance = sum(abs(arm.stats(queue).imbalance) for queue in QUEUES)
        finally:
            arm.close()
        return record

    def close(self) -> None:
        """Hang up."""
        self._neighbour.close()
        self._server.close()

    def _load(self, act: int, arm: Arm, record: Record, watch: Watch, show: Show) -> None:
        """The load of Acts 1 and 2: test-sends at a steady rate, then the flood on top of them."""
        plan, campaigns = self.plan, record.receipts[CAMPAIGNS]

        def offer(queue: str) -> Callable[[Message], Answer]:
            return partial(arm.offer, queue)

        with Crew() as worker, Crew() as producers:
            go_on = partial(self._go_on, watch, show, crew=producers)
            arm.employ(worker, STUDIO, plan.workers)
            sends = map(self._messages(act, STUDIO, 0), count())
            receipts, began = record.receipts[STUDIO], watch.now
            producers.start(partial(steady, offer(STUDIO), sends, receipts, producers.ending, plan.rate))
            go_on("studio alone", seconds=plan.lead)

            record.flood_at = watch.now
            for producer in range(plan.flooders):
                letters = map(self._messages(act, CAMPAIGNS, producer), count())
                producers.start(partial(flood, offer(CAMPAIGNS), letters, campaigns, producers.ending, plan.back_off))
            go_on("the flood is on", seconds=plan.rush, until=lambda: bool(campaigns.refused))
            if campaigns.refused:
                record.full_at = watch.now
            full = "the server is full" if act == 1 else "campaigns is full"
            note = f"{full}; the producers go on"
            # What studio had before is not what the flood leaves of it: on a slow machine there is a backlog.
            go_on(note, seconds=plan.after, until=lambda: arm.held(STUDIO)[0] <= 1)
            go_on(note, seconds=max(plan.after, self._length - watch.now))
            # A machine that stood still just now has test-sends to make up for.
            go_on(note, seconds=plan.after, until=lambda: receipts.total >= plan.rate * (watch.now - began) - 2)
            producers.end()
            record.ended = watch.now
            go_on("the producers have stopped", seconds=plan.tail, until=lambda: not arm.held(STUDIO)[0])
            record.closed = watch.now
            worker.check()

    @contextmanager
    def _full_server(self, record: Record, watch: Watch, show: Show) -> Iterator[None]:
        """Within this the server is full to the last byte: the neighbour takes whatever somebody gives back."""
        self._neighbour.fill()
        with Crew() as neighbours:
            neighbours.start(partial(self._neighbour.keep_full, neighbours.ending))
            record.drain_at, refused = watch.now, self._neighbour.refused
            yield
            record.drained_in = watch.now - record.drain_at
            record.refused_writes = self._neighbour.refused - refused
            neighbours.check()

    def _go_on(
        self,
        watch: Watch,
        show: Show,
        note: str,
        crew: Crew,
        seconds: float,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Show what happens for some seconds, or until something is so."""
        end = watch.now + seconds
        while watch.now < end and not until():
            crew.check()
            show(watch.take(), note)
            time.sleep(self.plan.step)

    def _close_books(self, record: Record, arm: Arm, post: _Post) -> None:
        """Read back what was delivered and what is left."""
        record.mails = post.maildir.read()
        record.held = {queue: arm.held_ids(queue) for queue in QUEUES}

    def _messages(self, act: int, queue: str, producer: int) -> Callable[[int], Message]:
        make = self._campaign.letter if queue == CAMPAIGNS else self._campaign.test_send
        return lambda n: make(new_id(act, queue, producer, n), n * self.plan.flooders + producer)


class _Post:
    """
    Renders messages into a Maildir.

    Attributes:
        maildir: Where they are counted in the end.
        sent: Their ids by queue, for the display alone.
    """

    def __init__(self, campaign: Campaign, folder: Path) -> None:
        self._campaign = campaign
        self.maildir = Maildir(folder)
        self.sent: dict[str, list[str]] = {queue: [] for queue in QUEUES}

    def handle(self, queue: str, message: Message) -> None:
        """What a worker does with a message."""
        self.maildir.deliver(self._campaign.render(message))
        self.sent[queue].append(message.id)


def _writable(file: Path) -> bool:
    return not file.is_dir() and os.access(file if file.exists() else file.parent, os.W_OK)
