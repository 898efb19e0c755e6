"""What all leases have to pass."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import pytest
import pytest_asyncio

from readside.core.leases import RESETS, Unit
from readside.ports.ledger import Lease, Leases

UNITS = [Unit(name, number) for name in ("a", "b") for number in range(4)]


class LeasesContract(ABC):
    """Who works on what. Each test has an app of its own. Time passes only by `elapse`."""

    #: Seconds that a lease lives; so long that no slow machine lets it run out unasked.
    ttl: ClassVar[float] = 600.0
    pytestmark = pytest.mark.asyncio

    @abstractmethod
    async def make(self) -> Leases:
        """The leases; each call gives another connection to the same ones."""

    @abstractmethod
    async def elapse(self, seconds: float) -> None:
        """Let the ledger's clock pass, behind the adapter's back."""

    @abstractmethod
    async def step_back(self, seconds: float) -> None:
        """Let the ledger's clock step back, as after a failover to a server whose clock is behind."""

    async def done(self, leases: Leases) -> None:  # noqa: B027 - a hook that may stay empty
        """Disconnect."""

    @pytest_asyncio.fixture
    async def leases(self) -> AsyncIterator[Leases]:
        leases = await self.make()
        yield leases
        await self.done(leases)

    async def _can_be_had(self, leases: Leases, held: Sequence[Lease]) -> None:
        seized = await leases.seize("elected", UNITS)
        assert sorted(lease.unit for lease in seized) == UNITS
        assert min(lease.token for lease in seized) > max(lease.token for lease in held)

    async def _settle(self, leases: Leases, *workers: str) -> dict[str, list[Lease]]:
        """Let everybody tend until nothing changes any more."""
        before: dict[str, list[Lease]] = {}
        for _ in range(10):
            held = {worker: sorted(await leases.tend(worker, UNITS)) for worker in workers}
            if held == before:
                return held
            before = held
        raise AssertionError(f"the leases do not come to rest: {before}")

    async def test_one_worker_takes_all(self, leases: Leases) -> None:
        held = await leases.tend("one", UNITS)
        assert sorted(lease.unit for lease in held) == UNITS
        assert all(lease.token > 0 for lease in held)

    async def test_renewing_keeps_units_and_tokens(self, leases: Leases) -> None:
        first = await leases.tend("one", UNITS)
        await self.elapse(self.ttl * 0.6)
        assert sorted(await leases.tend("one", UNITS)) == sorted(first)
        await self.elapse(self.ttl * 0.6)
        assert sorted(await leases.tend("one", UNITS)) == sorted(first)

    async def test_shares_are_fair_and_disjoint(self, leases: Leases) -> None:
        for crew in (["one", "two"], ["one", "two", "three"], ["one", "two", "three", "four"]):
            held = await self._settle(leases, *crew)
            units = [lease.unit for some in held.values() for lease in some]
            assert sorted(units) == UNITS
            sizes = [len(some) for some in held.values()]
            assert max(sizes) - min(sizes) <= 1

    async def test_those_who_join_move_as_little_as_possible(self, leases: Leases) -> None:
        before = {lease.unit: lease.token for lease in await leases.tend("one", UNITS)}
        held = await self._settle(leases, "one", "two")
        kept = {lease.unit: lease.token for lease in held["one"]}
        assert kept == {unit: before[unit] for unit in kept}
        assert all(lease.token > before[lease.unit] for lease in held["two"])

    async def test_what_is_given_back_is_free_at_once(self, leases: Leases) -> None:
        before = {lease.unit: lease.token for lease in await leases.tend("one", UNITS)}
        await leases.leave("one")
        after = await leases.tend("two", UNITS)
        assert sorted(lease.unit for lease in after) == UNITS
        assert all(lease.token > before[lease.unit] for lease in after)

    async def test_owners_that_applied_nothing_are_counted_in_a_row(self, leases: Leases) -> None:
        for nth in (1, 2, 3):
            held = await leases.tend(f"silent {nth}", UNITS)
            assert {lease.starts for lease in held} == {nth}
            await self.elapse(self.ttl * 1.1)
        assert {lease.starts for lease in await leases.tend("well", UNITS)} == {4}
        held = await leases.tend("well", UNITS, thriving=UNITS[:3])
        assert {lease.unit: lease.starts for lease in held} == dict.fromkeys(UNITS, 4) | (
            dict.fromkeys(UNITS[:3], 0)
        )
        await leases.leave("well")
        assert {lease.starts for lease in await leases.tend("next", UNITS)} == {1}

    async def test_leaving_takes_nothing_from_others(self, leases: Leases) -> None:
        held = await self._settle(leases, "one", "two")
        await leases.leave("nobody")
        assert sorted(await leases.tend("two", UNITS)) == held["two"]
        await leases.leave("one")
        assert {lease.unit for lease in await leases.tend("two", UNITS)} == set(UNITS)

    async def test_a_silent_worker_loses_its_units(self, leases: Leases) -> None:
        held = await self._settle(leases, "one", "two")
        tokens = {lease.unit: lease.token for some in held.values() for lease in some}
        await self.elapse(self.ttl * 0.6)
        assert len(await leases.tend("two", UNITS)) == 4
        await self.elapse(self.ttl * 0.6)
        after = await leases.tend("two", UNITS)
        assert {lease.unit for lease in after} == set(UNITS)
        for lease in after:
            taken = lease.unit in {one.unit for one in held["one"]}
            assert (lease.token > tokens[lease.unit]) is taken

    async def test_who_was_away_too_long_gets_new_tokens(self, leases: Leases) -> None:
        before = {lease.unit: lease.token for lease in await leases.tend("one", UNITS)}
        await self.elapse(self.ttl * 1.1)
        after = await leases.tend("one", UNITS)
        assert all(lease.token > before[lease.unit] for lease in after)

    async def test_what_ran_out_is_not_held(self, leases: Leases) -> None:
        """One wakes up late, beside another: what it does not take anew it does not have."""
        await leases.tend("one", UNITS)
        await self.elapse(self.ttl * 1.1)
        # "two" is alive, but wants other units: the share of "one" of these is half.
        await leases.tend("two", [Unit("elsewhere", 0)])
        held = await leases.tend("one", UNITS)
        assert len(held) == len(UNITS) // 2
        assert len(await leases.tend("two", UNITS)) == len(UNITS) // 2

    async def test_only_what_was_asked_for_is_held(self, leases: Leases) -> None:
        await leases.tend("one", UNITS)
        some = await leases.tend("one", UNITS[:3])
        assert sorted(lease.unit for lease in some) == UNITS[:3]

    async def test_workers_at_once_take_nothing_twice(self) -> None:
        crew = {f"w{number}": await self.make() for number in range(4)}
        for _ in range(6):
            answers = await asyncio.gather(*(some.tend(w, UNITS) for w, some in crew.items()))
        units = [lease.unit for held in answers for lease in held]
        assert sorted(units) == UNITS
        for leases in crew.values():
            await self.done(leases)

    async def test_seizing_takes_all_from_everybody(self, leases: Leases) -> None:
        before = {lease.unit: lease.token for lease in await leases.tend("one", UNITS)}
        seized = await leases.seize("two", UNITS)
        assert sorted(lease.unit for lease in seized) == UNITS
        assert all(lease.token > before[lease.unit] for lease in seized)
        # Its share is all of them only while nobody else is alive.
        await leases.leave("one")
        assert sorted(await leases.tend("two", UNITS)) == sorted(seized)

    async def test_nobody_takes_what_a_reset_holds(self, leases: Leases) -> None:
        one, other = (f"{RESETS}{name}" for name in ("one", "other"))
        held = await leases.seize(one, UNITS[:2])
        assert sorted(lease.unit for lease in held) == UNITS[:2]
        assert await leases.seize(other, UNITS[:2]) == []
        seized = await leases.seize("elected", UNITS)
        assert sorted(lease.unit for lease in seized) == UNITS[2:]
        assert sorted(await leases.tend(one, UNITS[:2], alone=True)) == sorted(held)
        await leases.leave(one)
        tended = await leases.tend("elected", UNITS, alone=True)
        assert sorted(lease.unit for lease in tended) == UNITS

    async def test_what_a_reset_held_can_be_had_when_its_lease_has_run_out(
        self, leases: Leases
    ) -> None:
        held = await leases.seize(f"{RESETS}one", UNITS)
        await self.elapse(self.ttl * 1.1)
        await self._can_be_had(leases, held)

    async def test_a_clock_that_steps_back_strands_no_units(self, leases: Leases) -> None:
        before = {lease.unit: lease.token for lease in await leases.tend("one", UNITS)}
        await self.step_back(self.ttl * 10)
        after = await leases.tend("two", UNITS)
        assert sorted(lease.unit for lease in after) == UNITS
        assert all(lease.token > before[lease.unit] for lease in after)

    async def test_a_clock_that_steps_back_strands_nothing_that_a_reset_held(
        self, leases: Leases
    ) -> None:
        held = await leases.seize(f"{RESETS}one", UNITS)
        await self.step_back(self.ttl * 10)
        await self._can_be_had(leases, held)

    async def test_who_is_alive_goes_on_after_the_clock_stepped_back(self, leases: Leases) -> None:
        await self._settle(leases, "one", "two")
        await self.step_back(self.ttl * 10)
        held = await self._settle(leases, "one", "two")
        assert [len(some) for some in held.values()] == [4, 4]
        lease = held["one"][0]
        await self.step_back(self.ttl * 10)
        assert await leases.outbid("one", lease, lease.token) is None

    async def test_outbidding_raises_a_held_token(self, leases: Leases) -> None:
        lease = next(iter(await leases.tend("one", UNITS)))
        newer = await leases.outbid("one", lease, lease.token + 1000)
        assert newer is not None
        assert newer.unit == lease.unit
        assert newer.token > lease.token + 1000
        assert newer in await leases.tend("one", UNITS)
        await leases.leave("one")
        after = {one.unit: one.token for one in await leases.tend("two", UNITS)}
        assert after[lease.unit] > newer.token

    async def test_outbidding_what_is_not_held_gives_nothing(self, leases: Leases) -> None:
        lease = next(iter(await leases.tend("one", UNITS)))
        assert await leases.outbid("two", lease, lease.token) is None
        newer = await leases.outbid("one", lease, lease.token)
        assert newer is not None
        assert await leases.outbid("one", lease, lease.token) is None
        await self.elapse(self.ttl * 1.1)
        assert await leases.outbid("one", newer, newer.token) is None
