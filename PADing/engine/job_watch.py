"""Ends a job of several processes soon after one of them has failed, and says which one and why.

Processes that wait for each other (gradients, evaluation) may wait for hours, because scoring an evaluation may take
that long. So each process has two threads beside its work. One sends a heartbeat every second to the store through
which the job has met, and reads there whether any process has failed. The other looks at the processes of its own
machine. Heartbeats go on while the main thread computes or waits in a library, so the length of an evaluation has no
limit here.

The first failure counts, and its report is printed first: an exception by the process that has it, a process that is
gone or does not answer by one that has noticed it. The others end with the status of the failed process.

All times are counted in steps of the watching thread, so neither a clock that is set nor a job that is suspended and
continued looks like a failure.
"""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace

from detectron2.utils import comm
from torch.distributed import PrefixStore, TCPStore, distributed_c10d

from PADing.command_line import STATUS_FAILED, STATUS_USER_ERROR, shows_tracebacks
from PADing.engine import interruption
from PADing.engine.failure_reports import Report, may_follow, mistake_of, print_at_once, traceback_of
from PADing.engine.interruption import STOP
from PADing.engine.peers import ALIVE, GONE, STOPPED, Peer, this_process
from PADing.errors import Interrupted, ReportedFailure

logger = logging.getLogger(__name__)

BEAT = 1.0  # seconds between two heartbeats
# Seconds until a process counts as failed: gone without a report, stopped by SIGSTOP, without a heartbeat on a machine
# that cannot be looked at, without one although it runs (reading a huge JSON file keeps Python's threads waiting).
NO_REPORT, FROZEN, SILENT, BUSY = 2.0, 20.0, 120.0, 1800.0
# Seconds that others have to end by themselves or by their launcher, also after a signal, when they may be
# saving a checkpoint.
LINGER, SAVING = 5.0, 600.0
# Seconds that an error which another process may have caused waits for the report of that process.
CAUSE = 10.0
# Seconds that a process waits until the others have read its report, or have reported the same.
TOLD = 3.0
NEIGHBOURS = 8  # how many processes each one watches on other machines
DONE = "done"


@contextmanager
def watched_job() -> Iterator[None]:
    """For the work of each process of a job, inside its process group; all processes enter and leave together.

    Raises:
        ReportedFailure: this process or another one has failed, and the report is printed.
        UserError: with ``PADING_TRACEBACK=1``, that of this process.
    """
    global _CURRENT
    watch = _join() if comm.get_world_size() > 1 else None
    if watch is None:
        yield
        return
    _CURRENT = watch
    try:
        yield
        watch.done()
        comm.synchronize()  # leave together: the first process may keep the store
    except BaseException as error:
        watch.fail(error)
        raise
    finally:
        _CURRENT = None
        watch.close()


def report_lost_process() -> None:
    """After a signal to stop: report a process of the job that has ended without a report, which may be the cause."""
    if _CURRENT is not None:
        _CURRENT.blame()


def report_of_another(error: BaseException) -> str:
    """For an error in this process: the report of the process that has caused it; "" if this one is the first."""
    return "" if _CURRENT is None else _CURRENT.cause(error)


def _join() -> "JobWatch | None":
    """The watch of this job, which all processes make together; None if the job has no store to meet at."""
    store = distributed_c10d._get_default_store()
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    rank = comm.get_rank()
    everywhere = comm.all_gather((os.urandom(8).hex(), asdict(this_process(rank)), isinstance(store, TCPStore)))
    if not all(has_store for *_, has_store in everywhere):
        logger.info("The processes of this job do not watch each other, because they have not met through TCP.")
        return None
    # A connection of its own: the main thread may wait in the other one.
    assert isinstance(store, TCPStore)
    own = TCPStore(store.host, store.port, is_master=False, wait_for_workers=False)
    # A key of this start of the job: torchrun's store also has what earlier starts have left.
    watch = JobWatch(PrefixStore(f"watch/{everywhere[0][0]}", own), [Peer(**peer) for _, peer, _ in everywhere], rank)
    comm.synchronize()  # all keys exist now
    watch.start()
    return watch


class JobWatch:
    """The watch of one process; see the module.

    Args:
        store: of the job; the keys of ``watch`` in all processes.
        peers: all processes, by rank.
        rank: that of this process.
    """

    def __init__(self, store: PrefixStore, peers: list[Peer], rank: int):
        self.store, self.peers, self.rank = store, peers, rank
        self.own = peers[rank]
        near = {r for r, peer in enumerate(peers) if peer.machine and peer.machine == self.own.machine}
        near |= {(rank + 1 + i) % len(peers) for i in range(NEIGHBOURS)}
        self._watched = sorted(near - {rank})
        self.first: Report | None = None  # of the job
        self._same = ""  # the report of process 0
        self._seen = 0  # how many processes have read ``first``
        self._outbox: Report | None = None
        self._over, self._done, self._failing, self._lost = False, False, False, False
        self._kick, self._posted, self._known = threading.Event(), threading.Event(), threading.Event()
        self._round = 0
        self._values: dict[int, str] = {}  # heartbeats
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._exchange, self._guard)]
        store.set(f"beat/{rank}", "0")
        if rank == 0:
            store.set("failed", "")
            store.set("report/0", "")
            store.add("seen", 0)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def done(self) -> None:
        """The work of this process is done; it may end as soon as that of all is."""
        self._done = True
        self._kick.set()

    def close(self) -> None:
        """End the threads."""
        self._over = True
        self._kick.set()
        for thread in self._threads:
            thread.join(2 * BEAT)

    # ---- in the main thread, after an exception

    def blame(self) -> None:
        """After a signal to stop: report a process that is gone. A launcher sends SIGTERM when one has died."""
        before = self._round
        self._kick.set()
        self._waits(2 * BEAT, lambda: self._lost or self.first is not None or self._round > before + 1)
        for rank in self._watched:
            if self.first is None and self._values.get(rank) != DONE and self.peers[rank].state(self.own) == GONE:
                report = self._gone(self.peers[rank])
                print_at_once(str(report))
                self._post(report)

    def fail(self, error: BaseException) -> None:
        """Report an exception of this process, unless it follows from the failure of another one.

        Raises:
            ReportedFailure: with the status for this process, unless the exception itself says it.
        """
        self._failing = True
        if isinstance(error, KeyboardInterrupt):
            status = error.status if isinstance(error, Interrupted) else Interrupted(signal.SIGINT).status
            self.blame()
            self._post(self._report("stopped", "was stopped by a signal", "", status))
            return
        if isinstance(error, SystemExit):
            if error.code:
                status = error.code if isinstance(error.code, int) else 1
                self._tell(self._report("failed", f"has ended with status {status}", "", status), printed=False)
            return
        if mistake := mistake_of(error):
            self._fail_by_user(error, mistake)
            return
        if self.cause(error):
            assert self.first is not None
            raise ReportedFailure(self.first.status) from error
        raise ReportedFailure(STATUS_FAILED) from error  # ``cause`` has reported it

    def cause(self, error: BaseException) -> str:
        """The report of another process by which this one has failed. If there is none, report this exception."""
        if isinstance(error, KeyboardInterrupt | SystemExit) or mistake_of(error):
            return ""
        self._failing = True
        if self.first is None and may_follow(error):
            self._known.wait(CAUSE)
        if self.first is None:
            report = self._report("failed", "has failed", traceback_of(error), STATUS_FAILED)
            print_at_once(str(report))
            self._tell(report)
        first = self.first
        return "" if first is None or first.rank == self.rank else str(first)

    def _fail_by_user(self, error: BaseException, message: str) -> None:
        report = self._report("failed", "cannot go on", message, STATUS_USER_ERROR)
        if shows_tracebacks():
            self._tell(report)
            return
        if self.rank == 0:
            print_at_once(f"error: {message}")
            self._tell(report)
            raise ReportedFailure(STATUS_USER_ERROR) from error
        self._post(report)
        # All processes may have found the same mistake; then the first one reports it.
        deadline = time.monotonic() + TOLD
        while time.monotonic() < deadline and self._same != message:
            time.sleep(0.1)
        # The first one's output is not that of another machine.
        if self._same != message or comm.get_local_rank() == 0:
            print_at_once(f"error: ({self.own}) {message}")
        self._wait_for_readers()
        raise ReportedFailure(STATUS_USER_ERROR) from error

    def _report(self, kind: str, what: str, text: str, status: int, peer: Peer | None = None) -> Report:
        title = f"{peer or self.own} {what}"
        return Report((peer or self.own).rank, kind, title[0].upper() + title[1:], text, status, self.rank)

    def _tell(self, report: Report, printed: bool = True) -> None:
        if not printed:
            print_at_once(str(report))
        self._post(report)
        self._wait_for_readers()

    def _post(self, report: Report) -> None:
        """Send a report, if the store answers; the first one of the job is ``first`` then."""
        self._outbox = report
        self._kick.set()
        self._posted.wait(TOLD)
        if self.first is None:
            self.first = report

    def _wait_for_readers(self) -> None:
        # The store is in the first process, or a launcher ends the others: give them time to read.
        deadline = time.monotonic() + TOLD
        while time.monotonic() < deadline and self._seen < len(self.peers) - 1 and not self._lost:
            time.sleep(0.1)

    # ---- in the thread that talks to the store

    def _exchange(self) -> None:
        keys, beat, read = ["failed", "report/0", "seen", *(f"beat/{r}" for r in self._watched)], 0, False
        try:
            while not self._over:
                beat += 1
                self.store.set(f"beat/{self.rank}", DONE if self._done else str(beat))
                self._send()
                failed, same, seen, *beats = (value.decode() for value in self.store.multi_get(keys))
                self._same, self._seen = same, int(seen)
                self._values = dict(zip(self._watched, beats, strict=True))
                self._round += 1
                if failed and not read:
                    read = True
                    self.first = Report(**json.loads(failed))
                    self._known.set()
                    self.store.add("seen", int(self.first.rank != self.rank))
                self._kick.wait(BEAT / 5 if read else BEAT)
                self._kick.clear()
            self._send()
            self.store.set(f"beat/{self.rank}", DONE)
        except Exception as error:  # torch raises several types when the store is gone
            if not self._over:
                logger.debug("The store of the job does not answer: %s", error)
            self._lost = True

    def _send(self) -> None:
        if self._outbox is None:
            return
        report, self._outbox = self._outbox, None
        if report.rank == self.rank == 0:
            self.store.set("report/0", report.text)
        text = self.store.compare_set("failed", "", json.dumps(asdict(report)))
        self.first = Report(**json.loads(text))
        self._posted.set()
        self._known.set()

    # ---- in the thread that looks at the others

    def _guard(self) -> None:
        ages = {key: 0.0 for key in ("store", *self._watched)}
        frozen, gone = dict.fromkeys(self._watched, 0.0), dict.fromkeys(self._watched, 0.0)
        values: dict[int, str] = {}
        last_round, before, slept = 0, time.monotonic(), False
        while not self._over:
            time.sleep(BEAT / 4)
            now = time.monotonic()
            slept, step, before = slept or now - before > FROZEN, min(now - before, BEAT), now
            if self.first is not None:
                self._end_after(self.first)
                return
            if STOP.stopping and not self._failing or self._done and self._lost:
                continue  # others may end before this one
            answered, last_round = self._round != last_round, self._round
            ages["store"] = 0.0 if answered else ages["store"] + step
            for rank in self._watched:
                value, peer = self._values.get(rank, ""), self.peers[rank]
                if value == DONE:
                    continue
                state = peer.state(self.own)
                frozen[rank] = frozen[rank] + step if state == STOPPED else 0.0
                gone[rank] = gone[rank] + step if state == GONE else 0.0
                beats = value != values.get(rank) or ages["store"] > 2 * BEAT
                ages[rank] = 0.0 if value != values.get(rank) else ages[rank] + (not beats) * step
                values[rank] = value
                if found := self._finding(peer, state, gone[rank], frozen[rank], ages[rank]):
                    return self._found(found, slept)
            if not self._done and self._lost and ages["store"] > NO_REPORT + 2 * BEAT:
                return self._found(self._about_store(), slept)
            if ages["store"] > SILENT:
                return self._found(self._about_store(), slept)

    def _finding(self, peer: Peer, state: str, gone: float, frozen: float, silent: float) -> Report | None:
        if gone > NO_REPORT:
            return self._gone(peer)
        if frozen > FROZEN:
            text = "It will be continued, so that it can end."
            return self._report("silent", f"has been stopped (SIGSTOP) for {frozen:.0f} seconds", text, 1, peer)
        if silent > (BUSY if state == ALIVE else SILENT):
            text = "Its machine or the network may be down, or the process is stopped."
            return self._report("silent", f"has sent no heartbeat for {silent:.0f} seconds", text, 1, peer)
        return None

    def _gone(self, peer: Peer) -> Report:
        text = "It was killed, perhaps because the machine has no memory left, or it has crashed."
        return self._report("gone", "has ended without a report", text, 1, peer)

    def _about_store(self) -> Report:
        text = "The job has met there. That process, its machine or torchrun has ended, or the network is down."
        what = "does not answer, or torchrun on its machine does not"
        return self._report("silent", what, text, 1, self.peers[0])

    def _found(self, report: Report, slept: bool) -> None:
        """Report another process, unless a report has come meanwhile; then end. ``slept``: this one was stopped."""
        if slept:
            report = self._report("silent", "was stopped for so long that others have ended", "", STATUS_FAILED)
        if not self._lost:
            self._post(report)
        self.first = self.first or report
        self._known.set()
        if self.first == report:
            print_at_once(str(report))
        self._end_after(self.first)

    def _end_after(self, first: Report) -> None:
        """End this process because of a report, if it does not end by itself."""
        if first.rank == self.rank and first.kind in ("failed", "stopped"):
            return  # the main thread has reported it
        if first.kind == "stopped" and self._waits(interruption.GRACE, lambda: STOP.stopping):
            return  # stopping together
        saying = threading.Thread(target=self._say, args=(first,), daemon=True)
        saying.start()
        saying.join(BEAT)  # logging may be stuck, too
        if first.rank != self.rank:
            # The main thread, if it runs, has the time to end in an orderly way; a launcher may end it earlier.
            extra = SAVING if STOP.stopping else CAUSE + TOLD if self._failing else 0.0
            self._waits(LINGER + extra, lambda: self._over)
        if not self._over:
            with suppress(OSError):  # so that it can end
                if self.peers[first.rank].state(self.own) == STOPPED:
                    os.kill(self.peers[first.rank].pid, signal.SIGCONT)
            os._exit(first.status)

    def _waits(self, seconds: float, ended) -> bool:
        """Whether ``ended()`` becomes true within that time, or the watch is over."""
        while seconds > 0 and not (ended() or self._over):
            time.sleep(BEAT / 4)
            seconds -= BEAT / 4
        return bool(ended() or self._over)

    def _say(self, first: Report) -> None:
        if first.rank == self.rank:
            if first.by != self.rank:
                print_at_once(f"{str(self.own).capitalize()} was silent for so long that the others have ended.")
            return
        near = self.peers[first.rank].host == self.own.host
        lead = min(r for r, p in enumerate(self.peers) if p.host == self.own.host and r != first.rank)
        if not near and self.rank == lead and self.rank != 0:
            print_at_once(str(first))  # the output of another machine
        if near and self._failing:
            return  # the main thread says so
        short = replace(first, text=first.text.strip().rpartition("\n")[2] if near else first.text)
        logger.error("This is %s. It ends, because another process has failed. %s", self.own, short)


_CURRENT: JobWatch | None = None
