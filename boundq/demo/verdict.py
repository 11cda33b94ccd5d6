"""
What the demo proves, and whether it does.

Everything is counted by id, from what the producers were told, what is in the Maildir and what the queues hold at
the end; no counter of the demo's own takes part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boundq.demo.maildir import Mail
from boundq.demo.plan import CAMPAIGNS, MIB, QUEUES, STUDIO, Plan
from boundq.demo.record import Record, queue_of

__all__ = ["Account", "Promise", "Verdict", "judge"]

# Of the server's maxmemory: as full as a sample between two writes can show it.
_FULL = 0.97
# Of the memory in a queue's plateau: connections and their buffers come and go.
_FLAT = 2 * MIB


@dataclass(frozen=True, slots=True)
class Account:
    """
    The messages of one queue in one act, by id.

    Args:
        act: Its number.
        queue: The name.
        accepted: With a receipt; in Act 3 also those that Act 2 left in the queue.
        refused: The producer was told no.
        failed: The producer got no answer.
        done: Accepted, and in the Maildir.
        held: Accepted, not done, and in the queue at the end.
        lost: Accepted, and neither.
        twice: In the Maildir more than once.
        unasked: In the Maildir, and never accepted.
    """

    act: int
    queue: str
    accepted: int
    refused: int
    failed: int
    done: int
    held: int
    lost: int
    twice: int
    unasked: int

    @classmethod
    def of(cls, act: int, queue: str, record: Record, mails: Sequence[Mail]) -> Account:
        """
        Count.

        Args:
            act, queue: What to count.
            record: Of the act.
            mails: All there are of it; in Act 3, those of Act 2 as well: a message may not be sent in both.
        """
        receipts = record.receipts[queue]
        accepted = {*receipts.accepted, *record.carried.get(queue, ())}
        copies = Counter(mail.id for mail in mails if queue_of(mail.id) == queue)
        done = accepted & copies.keys()
        held = (accepted - done) & set(record.held.get(queue, ()))
        return cls(
            act,
            queue,
            accepted=len(accepted),
            refused=len({message_id for message_id, _ in receipts.refused}),
            failed=len({message_id for message_id, _ in receipts.failed}),
            done=len(done),
            held=len(held),
            lost=len(accepted - done - held),
            twice=sum(count > 1 for count in copies.values()),
            unasked=len(copies.keys() - accepted),
        )


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that has to hold: in which act, what, and what was found."""

    act: int
    text: str
    found: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The accounts, the promises, and a sentence for each act."""

    accounts: list[Account]
    promises: list[Promise]
    sentences: list[str]

    @property
    def holds(self) -> bool:
        """Whether every promise does."""
        return all(promise.ok for promise in self.promises)

    def account(self, act: int, queue: str) -> Account:
        """One of the accounts."""
        return next(one for one in self.accounts if (one.act, one.queue) == (act, queue))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields = Account.__dataclass_fields__
        return {
            "holds": self.holds,
            "accounts": [{name: getattr(account, name) for name in fields} for account in self.accounts],
            "promises": [
                {"act": one.act, "promise": one.text, "found": one.found, "ok": one.ok} for one in self.promises
            ],
            "sentences": self.sentences,
        }

    def show(self, console: Console) -> None:
        """Two tables and the sentences."""
        jobs = Table(box=box.SIMPLE_HEAD, title="Messages, counted by id", title_justify="left", title_style="bold")
        jobs.add_column("act")
        jobs.add_column("queue")
        columns = ("accepted", "refused", "done", "held", "lost", "twice")
        for name in columns:
            jobs.add_column(name, justify="right")
        for account in self.accounts:
            numbers = [getattr(account, name) for name in columns]
            cells = [
                Text(f"{number:,}", "bold red" if number and name in ("lost", "twice") else "")
                for name, number in zip(columns, numbers, strict=True)
            ]
            jobs.add_row(f"{account.act} {_ARMS[account.act]}", account.queue, *cells)
        console.print(jobs)

        table = Table(box=box.SIMPLE_HEAD, title="What has to hold", title_justify="left", title_style="bold")
        for name in ("act", "promise", "found", ""):
            table.add_column(name)
        for promise in self.promises:
            mark = Text("ok", "green") if promise.ok else Text("FAILED", "bold red")
            table.add_row(str(promise.act), promise.text, promise.found, mark)
        console.print(table)
        for sentence in self.sentences:
            console.print(sentence, highlight=False)
        console.print()
        if self.holds:
            console.print("The verdict holds.", style="bold green")
        else:
            failed = sum(not promise.ok for promise in self.promises)
            console.print(f"The verdict does not hold: {failed} of {len(self.promises)} failed.", style="bold red")


_ARMS = {1: "list", 2: "boundq", 3: "boundq"}


def judge(plan: Plan, first: Record, second: Record, third: Record) -> Verdict:
    """The verdict on three acts; Act 3 goes on with what Act 2 left."""
    both = [*second.mails, *third.mails]
    accounts = [
        *(Account.of(1, queue, first, first.mails) for queue in QUEUES),
        *(Account.of(2, queue, second, second.mails) for queue in QUEUES),
        *(Account.of(3, queue, third, both if queue == CAMPAIGNS else third.mails) for queue in QUEUES),
    ]
    return Verdict(
        accounts,
        [*_incident(plan, first), *_bounded(plan, second), *_drained(plan, third), _once(second, third, both)],
        [_first_sentence(plan, first), _second_sentence(plan, second), _third_sentence(third)],
    )


def _incident(plan: Plan, record: Record) -> list[Promise]:
    peak = max((sample.memory for sample in record.samples if sample.at <= record.ended), default=0)
    refused = {queue: len(record.receipts[queue].refused) for queue in QUEUES}
    late = _late_rate(plan, record)
    taken, there = _taken(record)
    stuck = taken <= 0.01 * there and record.refused_claims > 0
    return [
        Promise(1, "campaigns fills the server", _of(peak, plan.maxmemory), peak >= _FULL * plan.maxmemory),
        Promise(1, "both queues are refused", _numbers(refused), all(refused.values())),
        Promise(1, "studio is below 10 % of its rate", f"{late:.1f} done/s", late < 0.1 * plan.rate),
        Promise(1, "full to the last byte: no draining", f"{taken:,} of {there:,} taken out", stuck),
    ]


def _bounded(plan: Plan, record: Record) -> list[Promise]:
    campaigns, studio = record.receipts[CAMPAIGNS], record.receipts[STUDIO]
    jobs, size = _highest(record)
    most_bytes = int(plan.campaigns.max_bytes)
    within = jobs <= plan.campaigns.max_jobs and size <= most_bytes
    reasons = Counter(reason for _, reason in campaigns.refused)
    errors = len(campaigns.failed) + len(studio.failed)
    clean = bool(reasons) and reasons.keys() <= {"jobs", "bytes"} and not errors
    rate = _flood_rate(record)
    plateau = _plateau(record)
    flat = bool(plateau) and max(plateau) - min(plateau) <= _FLAT and max(plateau) <= 0.75 * plan.maxmemory
    spread = f"{min(plateau) / MIB:.1f} to {max(plateau) / MIB:.1f} MiB" if plateau else "never full"
    return [
        Promise(2, "campaigns stays within its limits", f"{_of(size, most_bytes)}, {jobs:,} jobs", within),
        Promise(2, "it is refused, and nothing else", f"{_numbers(reasons)}; {errors} errors", clean),
        Promise(2, "the server's memory is flat", spread, flat),
        Promise(2, "studio keeps 95 % of its rate", f"{rate / plan.rate:.1%}", rate >= 0.95 * plan.rate),
        Promise(2, "no test-send is refused", f"{len(studio.refused)} refused", not studio.refused),
    ]


def _drained(plan: Plan, record: Record) -> list[Promise]:
    told = [record.receipts[queue] for queue in QUEUES]
    reasons = Counter(reason for one in told for _, reason in one.refused)
    other = sum(len(one.accepted) + len(one.failed) for one in told)
    memory = [sample.memory for sample in record.samples if sample.at >= record.drain_at]
    lowest = min(memory, default=0)
    full = lowest >= _FULL * plan.maxmemory and record.refused_writes > 0
    taken, there = _taken(record)
    return [
        Promise(
            3,
            "full to the last byte: no enqueue",
            f"{_numbers(reasons)}; {other} other",
            reasons.keys() == {"memory"} and not other,
        ),
        Promise(3, "it stays full all the while", f"{lowest / MIB:.1f} MiB at least", full),
        Promise(3, "campaigns drains to nothing", f"{taken:,} of {there:,} taken out", 0 < there == taken),
    ]


def _taken(record: Record) -> tuple[int, int]:
    """What a worker took out of campaigns on a full server, and what there was to take."""
    accepted = {*record.receipts[CAMPAIGNS].accepted, *record.carried.get(CAMPAIGNS, ())}
    return len(accepted - set(record.held.get(CAMPAIGNS, ()))), len(accepted)


def _once(second: Record, third: Record, mails: Sequence[Mail]) -> Promise:
    """Over both acts of boundq, whichever of them a mail came in."""
    accepted = {id_ for record in (second, third) for queue in QUEUES for id_ in record.receipts[queue].accepted}
    copies = Counter(mail.id for mail in mails)
    held = {id_ for ids in third.held.values() for id_ in ids}
    lost, unasked = len(accepted - copies.keys() - held), len(copies.keys() - accepted)
    twice = sum(count > 1 for count in copies.values())
    off = abs(second.imbalance) + abs(third.imbalance)
    found = f"{lost} lost, {twice} twice, {unasked} unasked" + (f", ledger off by {off}" if off else "")
    ok = bool(accepted) and not (lost or twice or unasked or off)
    return Promise(3, "each accepted message is sent once", found, ok)


def _first_sentence(plan: Plan, record: Record) -> str:
    took = len(record.receipts[CAMPAIGNS].accepted)
    before = _rate(record, STUDIO, 0.0, record.flood_at)
    when = "never full" if record.full_at is None else f"full {record.full_at - record.flood_at:.1f} s into the flood"
    return (
        f"Act 1: the list took {took:,} campaign messages; the server was {when}. "
        f"Studio went from {before:.0f} to {_late_rate(plan, record):.0f} done a second."
    )


def _second_sentence(plan: Plan, record: Record) -> str:
    receipts = record.receipts[CAMPAIGNS]
    rate = _flood_rate(record)
    return (
        f"Act 2: boundq took {len(receipts.accepted):,} and refused {len(receipts.refused):,}; "
        f"studio went on at {rate:.0f} of {plan.rate} a second."
    )


def _third_sentence(record: Record) -> str:
    taken, there = _taken(record)
    return f"Act 3: on the full server, a worker drained {taken:,} of {there:,} messages in {record.drained_in:.1f} s."


def _late_rate(plan: Plan, record: Record) -> float:
    """Studio's done per second in the second half of the outage: what was in a worker's hands is through by then."""
    return _rate(record, STUDIO, record.ended - plan.after / 2, record.ended)


def _flood_rate(record: Record) -> float:
    """
    Studio's done per second of the flood. What is done just after its end counts: a pause of the machine at that
    moment is no fault of the queue's, and what was not accepted by then does not come later.
    """
    length = record.ended - record.flood_at
    return record.mails_between(STUDIO, record.flood_at, record.closed) / length if length > 0 else 0.0


def _rate(record: Record, queue: str, start: float, end: float) -> float:
    return record.mails_between(queue, start, end) / (end - start) if end > start else 0.0


def _highest(record: Record) -> tuple[int, int]:
    """The most jobs and bytes that campaigns held: by every receipt, and by every sample."""
    levels = [*record.receipts[CAMPAIGNS].levels, *(sample.levels[CAMPAIGNS][:2] for sample in record.samples)]
    return max((jobs for jobs, _ in levels), default=0), max((size for _, size in levels), default=0)


def _plateau(record: Record) -> list[int]:
    """The server's memory from half a second after campaigns was full."""
    if record.full_at is None:
        return []
    start = record.full_at + 0.5
    return [sample.memory for sample in record.samples if start <= sample.at <= record.ended]


def _numbers(by_name: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in by_name.items()) or "none"


def _of(size: int, most: int) -> str:
    return f"{size / MIB:.1f} of {most / MIB:.1f} MiB"
