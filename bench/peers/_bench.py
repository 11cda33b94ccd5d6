"""Peers: other Redis queues for Python beside this one, at the same work, against the same server, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from bench._harness import Column, Group, Options, Result, in_turns
from bench._place import Place
from bench.peers._arm import RATE, PeerArm, Size
from bench.peers._peer import FLOOR, OURS, Peer
from tests._memory import quieten

SIZES = {
    "tiny": Size(0.05, 0.05, 5, 100, 1),
    "quick": Size(0.4, 0.7, 150, 5000, 3),
    "full": Size(2.0, 3.0, 500, 10_000, 7),
}
_RATE, _CLIENT, _SERVER = "jobs/s", "client CPU us/job", "server CPU us/job"
GROUPS = {
    "enqueue, one job a call": (
        Column("enqueue_rate", _RATE, compared=True),
        Column("enqueue_client", _CLIENT, digits=1),
        Column("enqueue_server", _SERVER, digits=1),
    ),
    "bulk, 100 jobs a call": (
        Column("bulk_rate", _RATE, compared=True),
        Column("bulk_client", _CLIENT, digits=1),
        Column("bulk_server", _SERVER, digits=1),
    ),
    "drain by one worker process": (
        Column("drain_rate", _RATE, compared=True),
        Column("drain_worker", "worker CPU us/job", digits=1),
        Column("drain_server", _SERVER, digits=1),
    ),
    f"latency at {RATE:.0f} jobs/s": (
        Column("p50", "p50 ms", compared=True, digits=2),
        Column("p99", "p99 ms", compared=True, digits=2),
    ),
    "a waiting job": (Column("bytes", "bytes/job", compared=True),),
}


def measure_peers(others: Sequence[Peer]) -> Callable[[Place, Options], Result]:
    """What `measure` is for other benches, for these peers: redis-py and we ourselves are always among the compared."""

    def measure(place: Place, options: Options) -> Result:
        size = SIZES[options.size]
        if options.seconds:
            size = size._replace(enqueue_s=options.seconds, drain_s=options.seconds)
        quieten(place.server)
        arms = [PeerArm(peer, place, size, options.payload) for peer in (FLOOR, *OURS, *others)]
        # Processes are new in every round: there is nothing to warm up but the disk cache, which `set_up` does.
        runs = in_turns(arms, options.of(size.rounds), warm_up=0)
        failures = {arm.name: arm.failure for arm in arms if arm.failure}
        groups = []
        for title, columns in GROUPS.items():
            figure = columns[0].figure
            able = {name: found for name, found in runs.items() if name not in failures and figure in found[0]}
            base = FLOOR.name if FLOOR.name in able else None
            groups.append(Group(title, able, base, columns))
        notes = [note for group in groups for note in beside_the_best(group)]
        notes += [f"not run: {name}: {why}" for name, why in failures.items()]
        notes += [
            f"{peer.name}: " + "; ".join(f"{topic}: {what}" for topic, what in peer.does.items()) for peer in others
        ]
        facts = {
            "failures": failures,
            "packages": {peer.name: list(peer.packages) for peer in others},
            "does": {peer.name: dict(peer.does) for peer in others},
            "notes": notes,
        }
        return Result(groups, facts=facts, notes=notes)

    return measure


def beside_the_best(group: Group) -> list[str]:
    """For each compared figure: our ratio to the best of the peers, round by round."""
    ours = [peer.name for peer in OURS if peer.name in group.runs]
    others = [name for name in group.runs if name not in {FLOOR.name, *ours}]
    notes = []
    for column in group.columns if others else ():
        if not column.compared:
            continue
        pick = max if column.heading == _RATE else min
        best = pick(others, key=lambda name: statistics.median(run[column.figure] for run in group.runs[name]))
        pairs = Group(group.title, group.runs, best, group.columns)
        ratios = [(name, pairs.ratio(name, column.figure)) for name in ours]
        said = ", ".join(f"{name} {ratio.median:.2f}" for name, ratio in ratios if ratio)
        notes.append(f"{group.title}, {column.heading}: of the best peer's ({best}): {said}")
    return notes
