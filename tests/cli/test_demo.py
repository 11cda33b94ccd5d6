"""The demo: played for real, and its verdict, picture, mails and load by themselves."""

from __future__ import annotations

import io
import json
import mailbox
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
import redis
from rich.console import Console

from boundq import ConfigError, _embedded
from boundq.demo import play
from boundq.demo.listqueue import ListQueue
from boundq.demo.load import Answer, Crew, Receipts, flood, steady
from boundq.demo.maildir import Mail, Maildir
from boundq.demo.picture import draw
from boundq.demo.plan import CAMPAIGNS, FAST, STUDIO
from boundq.demo.record import Level, Record, Sample, new_id
from boundq.demo.render import Campaign, Message
from boundq.demo.stage import Stage
from boundq.demo.verdict import Verdict, judge
from tests._servers import Server, new_folder, wait_until

ROOT = Path(__file__).parents[2]
FULL = FAST.maxmemory


@pytest.fixture(scope="module", autouse=True)
def _needs_a_server() -> None:
    try:
        _embedded._binary()
    except ConfigError as problem:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(problem))


def small_console(**options: Any) -> Console:
    return Console(file=io.StringIO(), width=80, **options)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# ---------------------------------------------------------------- played


class Played:
    """One run of the fast demo and all it left behind."""

    def __init__(self) -> None:
        self.folder = new_folder()
        self.picture = self.folder / "demo.svg"
        self.mails = self.folder / "mails"
        self.temporary = new_folder()
        console, said = small_console(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(self.temporary))
            self.code = play(console=console, picture=self.picture, mail=self.mails, fast=True, json_to=said)
        self.text = printed(console)
        self.facts = json.loads(said.getvalue())

    def account(self, act: int, queue: str) -> dict[str, int]:
        return next(one for one in self.facts["accounts"] if (one["act"], one["queue"]) == (act, queue))


@pytest.fixture(scope="module")
def played() -> Played:
    return Played()


def test_the_verdict_holds(played: Played) -> None:
    """The exit code is 0, and each single promise holds."""
    assert [one for one in played.facts["promises"] if not one["ok"]] == []
    assert played.facts["holds"] is True
    assert played.code == 0
    assert "The verdict holds." in played.text


def test_the_list_queue_takes_everybody_down(played: Played) -> None:
    """Act 1 ends with refusals in both queues and a backlog that nobody can drain."""
    campaigns, studio = played.account(1, CAMPAIGNS), played.account(1, STUDIO)
    assert campaigns["refused"] > 0
    assert studio["refused"] > 0
    assert campaigns["held"] >= 0.99 * campaigns["accepted"] > 1000


def test_boundq_refuses_one_queue_and_loses_nothing(played: Played) -> None:
    """Act 2 refuses campaign messages alone; Act 3 sends each of the accepted ones once."""
    flooded, studio, drained = (played.account(*which) for which in ((2, CAMPAIGNS), (2, STUDIO), (3, CAMPAIGNS)))
    assert flooded["refused"] > 0
    assert flooded["accepted"] == flooded["held"] == drained["accepted"] == drained["done"]
    assert studio["accepted"] == studio["done"] > 0
    assert studio["refused"] == 0
    assert all(
        one["lost"] == one["twice"] == one["unasked"] == one["failed"] == 0 for one in (flooded, studio, drained)
    )


def test_accounts_agree_with_the_mails(played: Played) -> None:
    """Whoever counts the kept mails with a mail reader gets what the verdict says."""
    for act in (1, 2, 3):
        ids = [str(mail["Message-ID"]) for mail in mailbox.Maildir(played.mails / f"act-{act}", create=False)]
        done = {queue: played.account(act, queue)["done"] for queue in (CAMPAIGNS, STUDIO)}
        assert {queue: sum(f".{queue}." in one for one in ids) for queue in done} == done
        assert len(set(ids)) == len(ids)


def test_the_picture_of_a_run(played: Played) -> None:
    """It is well-formed, and says what happened in words."""
    texts = texts_in(played.picture.read_text(encoding="utf-8"))
    assert "Memory of the server, MiB" in texts
    assert "studio: test-sends done per second" in texts
    assert {"Act 1: list queue", "Act 2: boundq"} <= texts
    assert set(played.facts["sentences"]) <= texts
    assert str(played.picture) in played.text.replace("\n", "")


def test_text_when_piped(played: Played) -> None:
    """Without a terminal: a line for each second of each act, in 80 columns, no control characters."""
    assert "\x1b" not in played.text
    assert max(len(line) for line in played.text.splitlines() if str(played.folder) not in line) <= 80
    acts = re.split(r"^Act \d of 3: ", played.text, flags=re.MULTILINE)
    assert len(acts) == 4
    for act in acts[1:]:
        assert len(re.findall(r"^ *\d+\.\d +\d+\.\d MiB", act, re.MULTILINE)) >= 2


def test_nothing_is_left_behind(played: Played) -> None:
    """The server and its folder are gone when the demo returns."""
    assert list(played.temporary.iterdir()) == []


def test_interrupted() -> None:
    """Ctrl-C in the middle of an act: exit code 130, no server, no folder, no traceback."""
    temporary = new_folder()
    program = (
        "import sys; from rich.console import Console; from boundq.demo import play\n"
        "sys.exit(play(console=Console(), picture=None, fast=True))"
    )
    demo = subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "the flood is on" in line:
            demo.send_signal(signal.SIGINT)
            break
    out, err = demo.communicate(timeout=30)
    assert demo.returncode == 130, err
    assert "interrupted" in out
    assert err == ""
    wait_until(lambda: not list(temporary.iterdir()), "the server's folder to go", timeout=15)


def test_paths_are_checked_before_the_acts(tmp_path: Path) -> None:
    """A picture that cannot be written, or a mail folder with something in it, is said at once."""
    console = small_console()
    with pytest.raises(ConfigError, match="picture"):
        play(console=console, picture=tmp_path / "missing" / "demo.svg")
    with pytest.raises(ConfigError, match="picture"):
        play(console=console, picture=tmp_path)
    (tmp_path / "letter").touch()
    with pytest.raises(ConfigError, match="mail"):
        play(console=console, picture=None, mail=tmp_path)
    assert printed(console) == ""


# ---------------------------------------------------------------- verdict


def acts() -> list[Record]:
    """Three acts as they should be, in small numbers: what `judge` finds nothing wrong with."""
    flat, empty = Level(10, 4000, 0, 0, 0), Level(0, 0, 0, 0, 0)
    first, second, third = (Record(began=1000.0 * act) for act in (1, 2, 3))
    for act, record in ((1, first), (2, second)):
        record.flood_at, record.full_at, record.ended, record.closed = 2.0, 3.0, 8.0, 8.2
        memory = [1, 1, 1] + [FULL] * 6 if act == 1 else [1] * 9
        record.samples = [Sample(at, used, {CAMPAIGNS: flat, STUDIO: empty}) for at, used in enumerate(memory)]
        campaigns, studio = record.receipts[CAMPAIGNS], record.receipts[STUDIO]
        for n in range(10):
            campaigns.note(new_id(act, CAMPAIGNS, 0, n), Answer(True, jobs=n + 1, bytes=400 * (n + 1)))
        campaigns.note(new_id(act, CAMPAIGNS, 0, 10), Answer(False, "OOM" if act == 1 else "bytes"))
        for n in range(400 if act == 2 else 100):
            studio.note(new_id(act, STUDIO, 0, n), Answer(True, jobs=1, bytes=400))
            record.mails.append(Mail(new_id(act, STUDIO, 0, n), record.began + (n + 1) / 50))
        record.held = {CAMPAIGNS: list(campaigns.accepted), STUDIO: []}
    first.receipts[STUDIO].note(new_id(1, STUDIO, 0, 400), Answer(False, "OOM"))
    first.refused_claims = 3
    third.carried = {CAMPAIGNS: list(second.held[CAMPAIGNS])}
    third.held = {CAMPAIGNS: [], STUDIO: []}
    third.samples = [Sample(0.0, 1, {CAMPAIGNS: flat, STUDIO: empty})]
    third.samples += [Sample(at, FULL, {CAMPAIGNS: flat, STUDIO: empty}) for at in (1.0, 2.0)]
    third.drain_at, third.drained_in, third.refused_writes = 0.5, 1.5, 100
    for queue in (CAMPAIGNS, STUDIO):
        third.receipts[queue].note(new_id(3, queue, 0, 0), Answer(False, "memory"))
    third.mails = [Mail(message_id, third.began + 1) for message_id in third.carried[CAMPAIGNS]]
    return [first, second, third]


def test_a_verdict_that_holds() -> None:
    """Nothing is wrong with three acts as they should be; the accounts are sums by id."""
    verdict = judge(FAST, *acts())
    assert [one for one in verdict.promises if not one.ok] == []
    assert verdict.holds
    studio = verdict.account(1, STUDIO)
    assert (studio.accepted, studio.refused, studio.done, studio.held, studio.lost) == (100, 1, 100, 0, 0)
    campaigns = verdict.account(3, CAMPAIGNS)
    assert (campaigns.accepted, campaigns.done, campaigns.held) == (10, 10, 0)
    console = small_console()
    verdict.show(console)
    assert "The verdict holds." in printed(console)


def _the_list_never_fills(first: Record, second: Record, third: Record) -> None:
    first.samples = [sample._replace(memory=FULL // 2) for sample in first.samples]


def _only_the_flood_is_refused_in_act_1(first: Record, second: Record, third: Record) -> None:
    first.receipts[STUDIO].refused.clear()


def _studio_goes_on_in_act_1(first: Record, second: Record, third: Record) -> None:
    for n in range(100, 400):
        first.receipts[STUDIO].note(new_id(1, STUDIO, 0, n), Answer(True))
        first.mails.append(Mail(new_id(1, STUDIO, 0, n), first.began + n / 50))


def _the_list_drains(first: Record, second: Record, third: Record) -> None:
    first.held[CAMPAIGNS].pop()
    first.mails.append(Mail(new_id(1, CAMPAIGNS, 0, 9), first.began + 9))


def _nobody_tried_to_drain_the_list(first: Record, second: Record, third: Record) -> None:
    first.refused_claims = 0


def _one_job_too_many_by_a_receipt(first: Record, second: Record, third: Record) -> None:
    second.receipts[CAMPAIGNS].levels.append((FAST.campaigns.max_jobs + 1, 4000))


def _one_byte_too_many_in_a_sample(first: Record, second: Record, third: Record) -> None:
    level = Level(10, int(FAST.campaigns.max_bytes) + 1, 0, 0, 0)
    second.samples.append(Sample(7.5, 1, {CAMPAIGNS: level, STUDIO: level}))


def _the_flood_is_never_refused(first: Record, second: Record, third: Record) -> None:
    second.receipts[CAMPAIGNS].refused.clear()


def _a_connection_error(first: Record, second: Record, third: Record) -> None:
    second.receipts[STUDIO].note("act2.studio.0.x", Answer(False, "Unavailable", certain=False))


def _refused_for_another_reason(first: Record, second: Record, third: Record) -> None:
    second.receipts[CAMPAIGNS].note("act2.campaigns.0.x", Answer(False, "memory"))


def _memory_grows(first: Record, second: Record, third: Record) -> None:
    second.samples = [sample._replace(memory=n * 2**20) for n, sample in enumerate(second.samples)]


def _never_full(first: Record, second: Record, third: Record) -> None:
    second.full_at = None


def _studio_is_slowed_down(first: Record, second: Record, third: Record) -> None:
    second.mails = [mail for n, mail in enumerate(second.mails) if n % 10]


def _a_test_send_is_refused(first: Record, second: Record, third: Record) -> None:
    second.receipts[STUDIO].note("act2.studio.0.x", Answer(False, "bytes"))


def _accepted_on_a_full_server(first: Record, second: Record, third: Record) -> None:
    third.receipts[STUDIO].note("act3.studio.0.x", Answer(True))
    third.mails.append(Mail("act3.studio.0.x", third.began))


def _not_full_after_all(first: Record, second: Record, third: Record) -> None:
    third.samples.append(third.samples[-1]._replace(memory=FULL // 2))


def _no_write_was_refused(first: Record, second: Record, third: Record) -> None:
    third.refused_writes = 0


def _one_is_left(first: Record, second: Record, third: Record) -> None:
    third.held[CAMPAIGNS].append(third.mails.pop().id)


def _nothing_to_drain(first: Record, second: Record, third: Record) -> None:
    third.carried, third.mails = {}, []
    second.receipts[CAMPAIGNS].accepted.clear()


def _one_is_lost(first: Record, second: Record, third: Record) -> None:
    third.mails.pop()


def _one_test_send_is_lost(first: Record, second: Record, third: Record) -> None:
    second.mails.pop()


def _one_is_sent_twice(first: Record, second: Record, third: Record) -> None:
    third.mails.append(third.mails[0])


def _one_is_sent_in_both_acts(first: Record, second: Record, third: Record) -> None:
    second.mails.append(third.mails[0])


def _a_refused_one_is_sent(first: Record, second: Record, third: Record) -> None:
    third.mails.append(Mail(second.receipts[CAMPAIGNS].refused[0][0], third.began))


def _the_ledger_is_off(first: Record, second: Record, third: Record) -> None:
    third.imbalance = 1


@pytest.mark.parametrize(
    ("spoil", "promise"),
    [
        (_the_list_never_fills, "campaigns fills the server"),
        (_only_the_flood_is_refused_in_act_1, "both queues are refused"),
        (_studio_goes_on_in_act_1, "studio is below 10 % of its rate"),
        (_the_list_drains, "full to the last byte: no draining"),
        (_nobody_tried_to_drain_the_list, "full to the last byte: no draining"),
        (_one_job_too_many_by_a_receipt, "campaigns stays within its limits"),
        (_one_byte_too_many_in_a_sample, "campaigns stays within its limits"),
        (_the_flood_is_never_refused, "it is refused, and nothing else"),
        (_a_connection_error, "it is refused, and nothing else"),
        (_refused_for_another_reason, "it is refused, and nothing else"),
        (_memory_grows, "the server's memory is flat"),
        (_never_full, "the server's memory is flat"),
        (_studio_is_slowed_down, "studio keeps 95 % of its rate"),
        (_a_test_send_is_refused, "no test-send is refused"),
        (_accepted_on_a_full_server, "full to the last byte: no enqueue"),
        (_not_full_after_all, "it stays full all the while"),
        (_no_write_was_refused, "it stays full all the while"),
        (_one_is_left, "campaigns drains to nothing"),
        (_nothing_to_drain, "campaigns drains to nothing"),
        (_one_is_lost, "each accepted message is sent once"),
        (_one_test_send_is_lost, "each accepted message is sent once"),
        (_one_is_sent_twice, "each accepted message is sent once"),
        (_one_is_sent_in_both_acts, "each accepted message is sent once"),
        (_a_refused_one_is_sent, "each accepted message is sent once"),
        (_the_ledger_is_off, "each accepted message is sent once"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_verdict_that_fails(spoil: Callable[[Record, Record, Record], None], promise: str) -> None:
    """One thing goes wrong: its promise fails, the verdict with it, and both are shown."""
    records = deepcopy(acts())
    spoil(*records)
    verdict = judge(FAST, *records)
    assert promise in [one.text for one in verdict.promises if not one.ok]
    assert not verdict.holds
    assert verdict.as_dict()["holds"] is False
    console = small_console()
    verdict.show(console)
    assert "FAILED" in printed(console)
    assert "The verdict does not hold" in printed(console)


def test_what_is_lost_and_twice_is_counted_by_id() -> None:
    """The table shows how many ids are concerned."""
    first, second, third = acts()
    third.mails = [third.mails[0], *third.mails[:-2]]
    account = judge(FAST, first, second, third).account(3, CAMPAIGNS)
    assert (account.accepted, account.done, account.lost, account.twice) == (10, 8, 2, 1)


def test_a_failed_verdict_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happened in the acts, the code follows the verdict."""
    first, second, third = acts()
    _one_is_lost(first, second, third)
    for act, record in ((1, first), (2, second), (3, third)):
        monkeypatch.setattr(f"boundq.demo.acts._Theatre.act_{act}", lambda self, record=record: record)
    said = io.StringIO()
    assert play(console=small_console(), picture=None, fast=True, json_to=said) == 1
    assert json.loads(said.getvalue())["holds"] is False


def test_a_verdict_on_nothing_fails() -> None:
    """Acts in which nothing happened prove nothing, and nothing breaks on them."""
    verdict: Verdict = judge(FAST, Record(0.0), Record(0.0), Record(0.0))
    assert not verdict.holds


# ---------------------------------------------------------------- picture


def texts_in(svg: str) -> set[str]:
    root = ElementTree.fromstring(svg)
    return {element.text for element in root.iter("{http://www.w3.org/2000/svg}text") if element.text}


def test_picture_stays_inside_its_frame() -> None:
    """No point of a curve lies outside of the picture, whatever was measured."""
    first, second, _ = acts()
    first.samples[4] = first.samples[4]._replace(memory=2 * FULL)
    root = ElementTree.fromstring(draw(FAST, first, second, ["a", "b", "c"]))
    curves = [element.get("points", "").split() for element in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(points) for points in curves] == [9, 9, 32, 32]
    for point in (point for points in curves for point in points):
        x, y = map(float, point.split(","))
        assert 0 <= x <= 900
        assert 0 <= y <= 560


def test_picture_escapes_what_it_is_given() -> None:
    """A sentence with signs of markup is shown as it is."""
    first, second, _ = acts()
    assert "1 < 2 & <b>" in texts_in(draw(FAST, first, second, ["1 < 2 & <b>"], server="a & b"))


def test_picture_of_nothing() -> None:
    """Acts without samples make an empty picture, not an error."""
    assert "Memory of the server, MiB" in texts_in(draw(FAST, Record(0.0), Record(0.0), []))


# ---------------------------------------------------------------- mails


def test_every_recipient_gets_a_mail_of_their_own() -> None:
    """The template is filled from the record, names in any script included."""
    campaign = Campaign()
    seen = set()
    for n in range(200):
        message = campaign.letter(new_id(1, CAMPAIGNS, 0, n), n)
        mail = campaign.render(message)
        assert message.to in str(mail["To"])
        assert "$" not in mail.get_content()
        assert message.text in mail.get_content()
        seen.add(mail.get_content())
        assert mail.as_bytes()
    assert len(seen) == 200


def test_campaign_messages_are_4_kib() -> None:
    """What the producers of both arms send is as large as is said."""
    campaign = Campaign()
    sizes = [len(msgspec.json.encode(campaign.letter(new_id(1, CAMPAIGNS, 0, n), n))) for n in range(200)]
    assert min(sizes) > 4000
    assert max(sizes) < 4160


def test_unknown_recipient() -> None:
    """A message to nobody is an error, not a mail."""
    with pytest.raises(KeyError):
        Campaign().render(Message("a", "nobody@example.org", "", ""))


def test_maildir_gives_back_what_was_delivered(tmp_path: Path) -> None:
    """Ids are read from the files; a message that was delivered twice is there twice; mail readers can read it."""
    campaign, maildir = Campaign(), Maildir(tmp_path / "box")
    ids = [new_id(1, STUDIO, 0, n) for n in (0, 1, 1)]
    for n, message_id in enumerate(ids):
        maildir.deliver(campaign.render(campaign.test_send(message_id, n)))
    assert sorted(mail.id for mail in maildir.read()) == sorted(ids)
    subjects = {str(mail["Subject"]) for mail in mailbox.Maildir(tmp_path / "box", create=False)}
    assert len(subjects) == 3


# ---------------------------------------------------------------- load


class Ending(threading.Event):
    """Remembers how long it was waited for, and waits for nothing; set after so many waits."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.waited: list[float] = []
        self._waits = waits

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        if len(self.waited) >= self._waits:
            self.set()
        return self.is_set()


def messages() -> Iterator[Message]:
    return (Message(str(n), "", "", "") for n in count())


def test_flood_waits_as_it_is_told() -> None:
    """No pause after a receipt; after a refusal the queue's own estimate, or ours where it has none."""
    answers = iter([Answer(True, jobs=1), Answer(False, "bytes", 2.5), Answer(True), Answer(False, "bytes")])
    ending, receipts = Ending(waits=2), Receipts()
    flood(lambda message: next(answers), messages(), receipts, ending, back_off=0.5)
    assert ending.waited == [2.5, 0.5]
    assert receipts.accepted == ["0", "2"]
    assert receipts.refused == [("1", "bytes"), ("3", "bytes")]


def test_steady_makes_up_for_lost_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule is fixed: a call that took long is followed by others at once, until the rate is kept."""
    clock = [100.0]
    monkeypatch.setattr("boundq.demo.load.time.monotonic", lambda: clock[0])

    def offer(message: Message) -> Answer:
        clock[0] += 0.25 if message.id == "0" else 0.0
        return Answer(True)

    ending = Ending(waits=5)
    steady(offer, messages(), Receipts(), ending, rate=10)
    assert ending.waited == pytest.approx([0.0, 0.0, 0.0, 0.05, 0.15])


def test_an_error_in_a_thread_comes_out() -> None:
    """A crew's error is raised where the crew is ended."""

    def fail() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), Crew() as crew:
        crew.start(fail)


def test_list_queue_gives_back_what_a_dead_worker_held(
    any_server: Server, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ordinary queue is a good one: first in first out, and a taken message comes back when its lease ends."""
    client = redis.Redis.from_url(any_server.url)
    queue = ListQueue(client, f"boundq:{{{queue_name}}}:list")
    sent = [Message(str(n), "a@example.org", "", "text") for n in range(3)]
    for message in sent:
        queue.push(message)
    taken = queue.take(0.1)
    assert taken is not None
    assert msgspec.json.decode(taken, type=Message) == sent[0]
    assert sorted(queue.held_ids()) == ["0", "1", "2"]
    queue.recover()
    assert queue.held()[0] == 3
    monkeypatch.setattr("boundq.demo.listqueue.time.time", lambda: 2**40)
    queue.recover()
    monkeypatch.undo()
    again = queue.take(0.1)
    assert again == taken
    queue.done(taken)
    assert sorted(queue.held_ids()) == ["1", "2"]
    client.close()


# ---------------------------------------------------------------- display


def samples() -> list[Sample]:
    campaigns, studio = Level(16_201, 65 * 2**20, 16_201, 1_299, 0), Level(1, 4000, 300, 411, 250)
    return [Sample(at / 5, FULL, {CAMPAIGNS: campaigns, STUDIO: studio}) for at in range(20)]


def show_all(console: Console) -> str:
    with Stage(console, FAST).act("Act 1 of 3: a title") as show:
        for sample in samples():
            show(sample, "something is going on")
    return printed(console)


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars in colour, within 80 columns."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    text = show_all(small_console(force_terminal=True))
    assert "\x1b[31m" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "16,201 held, 1,299 refused" in plain
    assert max(map(len, re.split(r"[\r\n]+", plain))) <= 80


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR: bars without a colour."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = show_all(small_console(force_terminal=True))
    assert "server memory" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-8]", text)


def test_lines_elsewhere() -> None:
    """A line a second, and one for what is going on."""
    lines = show_all(small_console()).splitlines()
    assert sum(" MiB " in line for line in lines) == 4
    assert sum("something is going on" in line for line in lines) == 1
    assert max(map(len, lines)) <= 80
