"""The decisions of a quota that several workers share, on the levels and gate of the limiter in one process.

What is added here: a worker holds its tokens under a lease, and free tokens are shared out evenly among the
workers that wait. `redis/quota.lua` is the same in Lua, function by function; a test compares the two.

Nothing here does I/O. Times are integer nanoseconds of the store's clock, but for those of an `Exchange`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import attrs
import msgspec

from do_images_async._quota.buckets import Level, TokenBucket
from do_images_async._quota.gate import Gate
from do_images_async._quota.protocols import Report, Ticket
from do_images_async._quota.store import Answered, Exchange, Reply

__all__ = ["Member", "Memory", "OtherBucketsError", "SharedQuota", "Spent"]

_SECOND = 1_000_000_000
_MICROSECOND = 1000
_SETTLING = 2 * _SECOND
"""Nanoseconds without grants after a loss of memory, in which workers report what they have spent."""

_PATIENCE = _SECOND // 4
"""Nanoseconds by which a worker may be late; later than that, others are served before it."""


class Member(msgspec.Struct, array_like=True):
    """The store's record of a worker.

    Attributes:
        lease_ends: when it counts as dead unless it makes another exchange before.
        held: its requests that are not answered.
        wants: pairs of a reserve and the number of permits with it that the worker waits for.
        due: when it was told to come back; 0 when it does not wait.
        served: how many permits it was granted while it waited; the waiting worker with the lowest count goes
            first.
        number, reply: its last exchange, and the answer; no number when the worker must join again, since the
            memory may be older than its last exchange.
    """

    lease_ends: int
    held: int
    wants: list[tuple[int, int]] = []
    due: int = 0
    served: int = 0
    number: str = ""
    reply: Reply | None = None

    def is_awaited(self, now: int) -> bool:
        """Return whether it will come soon, or is late by less than `_PATIENCE`."""
        return self.due + _PATIENCE > now


class OtherBucketsError(ValueError):
    """The workers of one token do not agree on its buckets."""


class Memory(msgspec.Struct):
    """The store's record of one quota, without the spent tokens; plain data.

    Attributes:
        epoch: the name of this memory; a memory that was lost is replaced by one with another name.
        limits: capacity and period in microseconds of each bucket.
        serial, granted, held, finished: counts of all workers together; see `Ticket` and `Gate.opens_at`.
        least_served: the count of `served` at which a worker that begins to wait starts.
        lost: when requests that were never answered count as finished.
        gate: what the gate knows; None before the first exchange.
        written: when the last exchange was carried out.
        until: earlier epochs of this memory, and when it was written last in each.
    """

    epoch: str
    limits: list[tuple[int, int]]
    serial: int = 0
    granted: int = 0
    held: int = 0
    finished: int = 0
    least_served: int = 0
    lost: list[int] = []
    members: dict[str, Member] = {}
    gate: Gate | None = None
    written: int = 0
    until: dict[str, int] = {}


class Spent(msgspec.Struct, array_like=True):
    """The tokens that one exchange has spent, as the moments from which a bucket's period counts.

    Attributes:
        answered: the moments for this quota's requests; those for lost requests are in the future.
        others: the same for requests of others, which count in all buckets but the longest.
    """

    answered: list[int] = []
    others: list[int] = []


class SharedQuota:
    """The quota of one token at the moment of an exchange.

    Args:
        buckets: the limits.

    Attributes:
        spent: the tokens that the exchange has spent.
        cleared: whether it has forgotten all tokens that were spent before.
    """

    def __init__(self, buckets: Sequence[TokenBucket]) -> None:
        self._levels = [Level(bucket) for bucket in sorted(buckets, key=lambda bucket: bucket.period)]
        self._shortest, self._longest = self._levels[0], self._levels[-1]
        self._memory = Memory(epoch="", limits=[])
        self._gate = self._new_gate()
        self.spent = Spent()
        self.cleared = False

    @property
    def memory(self) -> Memory:
        """Return what the store has to keep after an exchange."""
        self._memory.gate = self._gate
        return self._memory

    @property
    def longest_period(self) -> int:
        """Return the nanoseconds after which a spent token is back in every bucket."""
        return self._longest.period

    def gate_after_a_boot(self, uptime: int) -> Gate:
        """Return a gate that paces if the shortest period has not passed since the machine was started.

        A power cut may have taken the last exchanges, and a restored disk more; until then they count.
        """
        gate = self._new_gate()
        if uptime < self._shortest.period:
            gate.expect_others(uptime)
        return gate

    def add(self, spent: Spent) -> None:
        """Add the tokens that an exchange has spent."""
        for moment in spent.answered:
            for level in self._levels:
                level.give_back(moment + level.period)
        for moment in spent.others:
            for level in self._levels[:-1]:
                level.give_back(moment + level.period)

    def remove(self, spent: Spent) -> None:
        """Undo `add`, for an exchange that was not written."""
        for moment in spent.answered:
            for level in self._levels:
                _discard(level.returns, moment + level.period)
        for moment in spent.others:
            for level in self._levels[:-1]:
                _discard(level.returns, moment + level.period)

    def clear(self) -> None:
        """Forget the spent tokens."""
        for level in self._levels:
            level.returns.clear()

    def exchange(self, memory: Memory, ask: Exchange, now: int, *, doubted: bool = False) -> Reply:
        """Carry out an exchange on a memory; see `Store.exchange`.

        Afterwards `memory` and `spent` are what the store has to keep.

        Args:
            memory: what the store keeps.
            ask: the exchange.
            now: the moment.
            doubted: whether the memory may be older than the last exchange.

        Raises:
            OtherBucketsError: other workers, which are alive, have other buckets.
        """
        self._memory, self.spent, self.cleared = memory, Spent(), False
        self._gate = memory.gate or self._new_gate()
        is_new = not memory.written
        if ask.slow_start and (is_new or self._is_unused(ask, now)):
            self._gate.start_slowly()
        if doubted:
            self._doubt_memory(ask, now)
        memory.written = now
        self._reap(now, ask.grace * _MICROSECOND)
        self._agree(ask)
        self._collect(now)
        member = memory.members.get(ask.worker)
        if member is not None and member.number == ask.number and member.reply is not None:
            member.lease_ends = now + ask.lease * _MICROSECOND
            return member.reply
        is_another = bool(ask.epoch) and memory.epoch != ask.epoch
        if is_another and not is_new:
            return self._answer_lost(ask, now)
        is_older = member is not None and bool(member.number) and member.held != ask.holds
        if is_another or is_older or memory.serial < ask.seen:
            self._forget_everything(ask, now)
            return self._answer_lost(ask, now)
        if member is None:
            if ask.joined:
                return self._answer(gone=True)
            member = memory.members[ask.worker] = Member(0, 0)
        self._hold(ask.holds - member.held)
        member.held = ask.holds
        member.lease_ends = now + ask.lease * _MICROSECOND
        member.number, member.reply = ask.number, self._serve(member, ask, now)
        return member.reply

    def _is_unused(self, ask: Exchange, now: int) -> bool:
        """Return whether nobody has used the memory for so long that Redis would have deleted it."""
        life = self._longest.period + (ask.grace + ask.lease) * _MICROSECOND + _SECOND
        return now - self._memory.written >= life

    # Memories that were lost, or a part of them.

    def _begin_epoch(self, ask: Exchange, now: int) -> None:
        """Grant nothing for a while, in which workers report what they have spent and this memory lacks.

        What others have spent nobody can report: pace, as if there were others. Workers have tickets of the
        memory before, so new serials are higher than all of those.
        """
        self._memory.epoch = ask.new_epoch
        self._memory.serial = max(self._memory.serial, now // 1_000_000)
        self._gate.close(now + _SETTLING)
        self._gate.expect_others(now)

    def _forget_everything(self, ask: Exchange, now: int) -> None:
        """Start with an empty memory when this one was emptied, or is older than a worker's."""
        self._memory = Memory(epoch="", limits=self._memory.limits, written=now)
        self._gate = self._new_gate()
        self.clear()
        self.spent, self.cleared = Spent(), True
        self._collect(now)
        self._begin_epoch(ask, now)

    def _doubt_memory(self, ask: Exchange, now: int) -> None:
        """Begin an epoch when what was written last may be missing.

        Each worker that is alive joins again, with what it has told since this memory was written.
        """
        memory = self._memory
        oldest = now - self._longest.period - ask.grace * _MICROSECOND
        memory.until = {epoch: last for epoch, last in memory.until.items() if last >= oldest}
        memory.until[memory.epoch] = memory.written
        for member in memory.members.values():
            member.number, member.reply = "", None
            member.lease_ends = now + ask.lease * _MICROSECOND
        self._begin_epoch(ask, now)

    def _answer_lost(self, ask: Exchange, now: int) -> Reply:
        """Tell a worker of another epoch that it must report what it has spent: since when, or everything."""
        self._memory.serial = max(self._memory.serial, ask.seen)
        last = self._memory.until.get(ask.epoch)
        return self._answer(lost=True, age=None if last is None else (now - last) / _SECOND)

    # Tokens.

    def _new_gate(self) -> Gate:
        return Gate(self._shortest.bucket.capacity, self._shortest.period, self._longest.period)

    def _send_back(self, number: int, moment: int, *, lost: bool) -> None:
        """Expect tokens back a period after a moment."""
        spent = Spent([moment] * number)
        self.add(spent)
        self.spent.answered += spent.answered
        if lost:
            self._memory.lost += [moment + self._shortest.period] * number

    def _hold(self, number: int) -> None:
        """Take out tokens for requests that are in flight, or put back as many for a negative number."""
        self._memory.held += number
        for level in self._levels:
            level.free -= number

    def _reap(self, now: int, grace: int) -> None:
        """Remove workers whose lease has ended, and count their requests in flight as lost.

        A worker that holds nothing does not renew its lease. It is removed when it is late for its next
        exchange.
        """
        for name, member in list(self._memory.members.items()):
            if member.lease_ends <= now and (member.held or not member.is_awaited(now)):
                self._send_back(member.held, member.lease_ends + grace, lost=True)
                self._memory.held -= member.held
                del self._memory.members[name]

    def _agree(self, ask: Exchange) -> None:
        """Raise ValueError unless the workers that are alive have the same buckets."""
        memory = self._memory
        limits = [tuple(limit) for limit in ask.buckets]
        if memory.limits != limits and memory.members:
            raise OtherBucketsError(
                f"the workers of one token must agree on its buckets: others say {memory.limits} (capacity,"
                f" microseconds), this one says {limits}"
            )
        memory.limits = [(capacity, period) for capacity, period in ask.buckets]

    def _collect(self, now: int) -> None:
        memory = self._memory
        for level in self._levels:
            level.collect(now)
            level.free = level.bucket.capacity - memory.held - len(level.returns)
        left = [due for due in memory.lost if due > now]
        memory.finished += len(memory.lost) - len(left)
        memory.lost = left

    def _answer(self, *, lost: bool = False, gone: bool = False, age: float | None = None) -> Reply:
        return Reply(
            epoch=self._memory.epoch,
            lost=lost,
            gone=gone,
            tickets={},
            wait=None,
            free=(),
            workers=1,
            pacing=False,
            age=age,
        )

    # Reports of a worker.

    def _take_in(self, member: Member, ask: Exchange, now: int) -> None:
        memory = self._memory
        for answered in ask.answered:
            memory.held -= 1
            memory.finished += 1
            self._send_back(1, now, lost=False)
            self._learn(answered, ask.clock, now)
        self._send_back(ask.lost, now + ask.grace * _MICROSECOND, lost=True)
        memory.held -= ask.lost
        self._hold(-ask.unsent)
        memory.granted -= ask.unsent
        member.held -= len(ask.answered) + ask.lost + ask.unsent
        for age in ask.elsewhere:
            answered_at = now - age * _MICROSECOND
            for level in self._levels:
                level.free -= answered_at + level.period > now
            self._send_back(1, answered_at, lost=False)
        if ask.settling:
            self._gate.close(now + ask.settling * _MICROSECOND)

    def _learn(self, answered: Answered, clock: int, now: int) -> None:
        """Let the gate know what a response says, and count the requests of others that it shows."""
        # Workers report late: requests that have finished since were not counted by this response.
        late = now - (clock - answered.at) * _MICROSECOND + self._longest.period
        returns = self._longest.returns
        missed = bisect_right(returns, now + self._longest.period) - bisect_right(returns, late)
        others = self._gate.answered(
            now,
            Ticket(answered.serial, answered.finished),
            _report_of(answered),
            latest=self._memory.serial,
            in_flight=self._memory.held + missed,
            outstanding=self._shortest.bucket.capacity - self._shortest.free,
            spent=self._longest.bucket.capacity - self._longest.free,
        )
        # For the longest window, the server's own count of remaining requests is used.
        for level in self._levels[:-1]:
            level.spend(others, now)
        self.spent.others += [now] * others

    # Grants to a worker.

    def _serve(self, member: Member, ask: Exchange, now: int) -> Reply:
        memory = self._memory
        was_waiting = bool(member.wants)
        self._take_in(member, ask, now)
        if ask.at_once:
            needed = memory.held + sum(number for _, number in ask.wants)
            self._gate.end_slow_start(needed, self._shortest.free)
        if not was_waiting:
            # A worker that was idle gets no more than the others.
            member.served = max(member.served, memory.least_served)
        tickets: dict[int, list[Ticket]] = {}
        member.wants, due = [], None
        for reserve, number in ask.wants:
            granted, back = self._grant(ask.worker, member, reserve, number, now)
            tickets[reserve] = granted
            if len(granted) < number:
                member.wants.append((reserve, number - len(granted)))
                due = back if due is None else min(due, back)
        member.due = due or 0
        return Reply(
            epoch=memory.epoch,
            lost=False,
            gone=False,
            tickets=tickets,
            wait=None if due is None else (due - now) / _SECOND,
            free=tuple(level.free for level in self._levels),
            workers=len(memory.members),
            pacing=self._gate.is_pacing,
            serial=memory.serial,
            opens_in=(self._earliest(now) - now) / _SECOND,
            at_least=(self._earliest(now, member.wants[0][0]) - now) / _SECOND if member.wants else 0.0,
            reserving=sum(
                each.is_awaited(now) and any(reserve for reserve, _ in each.wants)
                for each in memory.members.values()
            ),
        )

    def _earliest(self, now: int, reserve: int = 0) -> int:
        """Return when the next permit may be granted at the earliest, if no request proves to be unsent."""
        opens = self._gate.earliest(now, self._memory.granted, self._memory.held)
        return max(opens, *(level.earliest(reserve + 1, now) for level in self._levels))

    def _grant(
        self, name: str, member: Member, reserve: int, number: int, now: int
    ) -> tuple[list[Ticket], int]:
        """Grant permits of one reserve; return their tickets, and when to come back for the rest."""
        memory = self._memory
        rivals = {
            other: each
            for other, each in memory.members.items()
            if other != name and each.wants and each.is_awaited(now)
        }
        supply = min(level.free for level in self._levels) - reserve
        ahead = 0
        if rivals:
            supply = min(supply, self._room(now, supply))
            share, ahead = self._fair_share(supply, name, member, reserve, number, rivals)
        else:
            share = max(0, min(supply, number))
        tickets: list[Ticket] = []
        opens: int | None = now
        while len(tickets) < share and (opens := self._opens_at(now)) == now:
            tickets.append(self._take(now))
        if tickets:
            memory.least_served = max(memory.least_served, member.served)
        member.held += len(tickets)
        member.served += len(tickets)
        if len(tickets) == number:
            return tickets, now
        if opens == now:
            opens = self._opens_at(now)
        if opens == now:
            return tickets, self._next_visit(reserve, ahead, member.held, now)
        # A response may open the gate earlier.
        earliest = max(now, self._gate.earliest(now, memory.granted, memory.held))
        sooner = now + _PATIENCE
        return tickets, max(earliest, sooner if opens is None else min(opens, sooner))

    def _opens_at(self, now: int) -> int | None:
        memory = self._memory
        return self._gate.opens_at(now, memory.granted, memory.held, self._shortest.free)

    def _take(self, now: int) -> Ticket:
        memory = self._memory
        self._hold(1)
        memory.serial += 1
        memory.granted += 1
        self._gate.granted(now, memory.serial)
        return Ticket(memory.serial, memory.finished)

    def _room(self, now: int, most: int) -> int:
        """Return how many requests the gate allows now, `most` at most."""
        trial, memory = self._gate.copy(), self._memory
        for number in range(most):
            free = self._shortest.free - number
            if trial.opens_at(now, memory.granted + number, memory.held + number, free) != now:
                return number
            trial.granted(now, memory.serial + number + 1)
        return most

    def _fair_share(
        self,
        supply: int,
        name: str,
        member: Member,
        reserve: int,
        number: int,
        rivals: dict[str, Member],
    ) -> tuple[int, int]:
        """Return this worker's part of the supply, and how many others get the next token before it.

        The tokens go to the waiting workers that were served least, until all were served equally; the rest
        goes by name.
        """
        others: list[_Wish] = []
        for other, each in rivals.items():
            for wanted, amount in each.wants:
                if wanted < reserve:
                    supply -= amount
                elif wanted == reserve:
                    others.append(_Wish(other, each.served, amount))
        supply = max(0, supply)
        mine = _Wish(name, member.served, number)
        everyone = [mine, *others]
        low = min(wish.served for wish in everyone)
        high = max(wish.served + wish.number for wish in everyone)
        level = bisect_right(
            range(low + 1, high + 1), supply, key=lambda each: sum(wish.up_to(each) for wish in everyone)
        )
        low += level
        left = supply - sum(wish.up_to(low) for wish in everyone)
        ahead = sum(wish.wants_at(low) and (wish.name < name or not mine.wants_at(low)) for wish in others)
        return min(mine.up_to(low + (ahead < left)), number), ahead

    def _next_visit(self, reserve: int, ahead: int, held: int, now: int) -> int:
        """Return when to come back for the next token.

        Requests of other workers in flight may turn out to be unsent, and the workers ahead may not come. So
        the worker polls after a second, or later if more workers are ahead.
        """
        due = max(
            now + _PATIENCE // 5,
            *(_when_back(level, reserve + 1 + ahead - level.free, now) for level in self._levels),
        )
        if self._memory.held > held:
            next_back = now
        else:
            next_back = max(_when_back(level, reserve + 1 - level.free, now) for level in self._levels)
        return min(due, next_back + _SECOND * (4 + ahead) // 4)


@attrs.frozen
class _Wish:
    """The permits of one reserve that a worker waits for."""

    name: str
    served: int
    number: int

    def up_to(self, level: int) -> int:
        """Return how many permits it gets if all workers are served up to the count `level`."""
        return max(0, min(self.number, level - self.served))

    def wants_at(self, level: int) -> bool:
        """Return whether it would get another permit beyond that count."""
        return self.up_to(level + 1) > self.up_to(level)


def _when_back(level: Level, number: int, now: int) -> int:
    """Return when a bucket has `number` more tokens than now, if nobody else takes any."""
    if number <= 0:
        return now
    return level.returns[number - 1] if number <= len(level.returns) else now + level.period


def _discard(moments: list[int], moment: int) -> None:
    index = bisect_left(moments, moment)
    if index < len(moments) and moments[index] == moment:
        del moments[index]


def _report_of(answered: Answered) -> Report:
    return Report(
        remaining=answered.remaining,
        counted=answered.counted,
        refused=answered.refused,
        retry_after=None if answered.retry_after is None else answered.retry_after / 1_000_000,
        reset_in=None if answered.reset_in is None else answered.reset_in / 1_000_000,
    )
