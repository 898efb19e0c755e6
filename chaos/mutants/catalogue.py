"""The mutants: each a small wrong, and the check that should find it soonest.

A patch is exact text; where the code has moved on and it does not fit any more, the run says so
and fails, so that a mutant cannot survive by never having lived.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One small patch."""

    name: str
    #: Below src/readside.
    file: str
    old: str
    new: str
    #: Checks in the order they are tried: `tests:<paths>`, `simulate:<seeds>`, or
    #: `chaos:<broker>:<seed>:<kinds>`.
    checks: tuple[str, ...]


_CORE = "tests:tests/core"
_STAGES = "tests:tests/stages"
_SIMULATE = "simulate:300"
_STORE = "chaos:nats:2:projector_kill,valkey_kill,store_flushed,store_rolled_back"
_STREAM = "chaos:nats:2:stream_purged,stream_deleted,relay_kill"
_POISON = "chaos:nats:2:poison_raises,projector_kill,link_cut"
_DIRECT = "chaos:direct:2:relay_kill,store_rolled_back,graceful_restart"
_CALM = "chaos:nats:2:link_delay"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "checkpoint before documents",
        "adapters/redis/store.py",
        "        keys, values = arguments_of(batch, self._app)\n",
        "        if batch.checkpoint is not None and batch.writes:\n"
        "            first = await self.apply(batch._replace(writes=(), parked=()))\n"
        "            if first is not Outcome.APPLIED:\n"
        "                return first\n"
        "            batch = batch._replace(expected=batch.checkpoint)\n"
        "        keys, values = arguments_of(batch, self._app)\n",
        ("chaos:nats:2:projector_kill,valkey_kill,link_cut,relay_kill",),
    ),
    Mutant(
        "positions of a document not checked",
        "core/folding.py",
        'self.positions.get(record.partition, "") >= position',
        "not position",
        (_CORE, _STORE),
    ),
    Mutant(
        "documents written without compare-and-set",
        "adapters/redis/apply.lua",
        "if has ~= ARGV[4 + n] then",
        "if false then",
        ("tests:tests/conformance -k redis", _CALM),
    ),
    Mutant(
        "documents overwritten whatever they hold",
        "adapters/redis/apply.lua",
        "if #has ~= #new or has >= new or string.sub(has, 1, #prefix) ~= prefix then",
        "if false then",
        ("tests:tests/conformance -k redis",),
    ),
    Mutant(
        "zombie not fenced",
        "adapters/redis/apply.lua",
        "return 'FENCED'",
        "local _ = 'FENCED'",
        (
            "tests:tests/conformance -k redis",
            "chaos:nats:2:projector_pause,store_flushed,store_rolled_back",
        ),
    ),
    Mutant(
        "slot confirmed before the projections have applied",
        "relay/relay.py",
        "bookmark = shipping.settling.settle(applied)",
        "bookmark = shipping.settling.force()",
        (_STAGES, _DIRECT, _STREAM),
    ),
    Mutant(
        "predecessor not checked",
        "core/chain.py",
        "    if record.predecessor > applied.position:\n",
        "    if record.predecessor > applied.position and False:\n",
        (_CORE, _STREAM),
    ),
    Mutant(
        "duplicates not told apart",
        "core/chain.py",
        "    if record.position <= applied.position:\n",
        "    if record.position <= applied.position and False:\n",
        (_CORE, _STREAM),
    ),
    Mutant(
        "parked after the checkpoint",
        "projector/folds.py",
        "            folded, parked = await self._fold(steps, expected, survived)\n",
        "            if self._parked and expected != checkpoint:\n"
        "                early = Batch(*self._unit, expected, checkpoint, (), ())\n"
        "                await self._store.apply(early)\n"
        "                expected = checkpoint\n"
        "            folded, parked = await self._fold(steps, expected, survived)\n",
        (_STAGES, _SIMULATE, _POISON),
    ),
    Mutant(
        "what an event waits for is told by a store that came back",
        "projector/folds.py",
        "            await self.check(expected)\n        away",
        "            pass\n        away",
        (_STAGES,),
    ),
    Mutant(
        "later events of a parked document not held back",
        "projector/folds.py",
        "return hold is not None and step.record.position >= hold.since",
        "return hold is None and False",
        (_STAGES, _POISON),
    ),
    Mutant(
        "lost tail not noticed",
        "projector/lane.py",
        "        if watermark.last <= position:\n",
        "        if watermark.last <= position or True:\n",
        (_STAGES, _STREAM, _DIRECT),
    ),
    Mutant(
        "bookmark in the middle of a transaction",
        "core/shipping.py",
        "if self._taken < self._settled:",
        "if self._taken or True:",
        (_CORE,),
    ),
    Mutant(
        "broker's tail trusted against a wish",
        "core/shipping.py",
        "            self._tails[partition] = wish.after\n",
        "            pass\n",
        (_CORE, _STREAM),
    ),
    Mutant(
        "all records of a transaction at one position",
        "adapters/postgres/source.py",
        "            ordinal += 1\n            # tuple's",
        "            ordinal = 1\n            # tuple's",
        ("tests:tests/adapters", _CALM),
    ),
    Mutant(
        "keepalive settles an open transaction",
        "adapters/postgres/source.py",
        "            if not self._open:\n",
        "            if not self._open or True:\n",
        ("tests:tests/adapters", _DIRECT),
    ),
    Mutant(
        "reader does not wait for its token",
        "query/reader.py",
        "            missing = behind(reading, token)\n",
        "            missing: list[int] = []\n",
        ("tests:tests/acceptance -k read", _CALM),
    ),
    Mutant(
        "deleted documents forget their positions",
        "adapters/redis/apply.lua",
        "    redis.call('HSET', KEYS[2], unpack(ARGV, pairs_from + 2 * first - 1,",
        "    for n = first, last do\n"
        "        if ARGV[documents_from + n] == '' then\n"
        "            ARGV[pairs_from + 2 * n] = ''\n"
        "        end\n"
        "    end\n"
        "    redis.call('HSET', KEYS[2], unpack(ARGV, pairs_from + 2 * first - 1,",
        ("tests:tests/conformance -k redis", _STORE),
    ),
    Mutant(
        "a late relay takes the bookmark back",
        "adapters/postgres/ledger.py",
        "greatest(confirmed_lsn, %s)",
        "least(%s, origin_lsn)",
        ("tests:tests/conformance -k ledger", "tests:tests/adapters"),
    ),
    Mutant(
        "a wiped store noticed only by the next write",
        "projector/lane.py",
        "        await self._folds.check(self._checkpoint)\n",
        "",
        (_STAGES, "tests:tests/acceptance"),
    ),
    Mutant(
        "positions written as numbers",
        "core/position.py",
        'return f"{self.epoch:08x}-{self.lsn:016x}-{self.ordinal:08x}"',
        'return f"{self.epoch:08x}-{float(self.lsn):.8e}".ljust(25, "0") + f"-{self.ordinal:08x}"',
        (_CORE,),
    ),
    Mutant(
        "retry does not wait for its turn",
        "projector/release.py",
        "        if reached < event.base:\n",
        "        if reached < event.base and False:\n",
        ("tests:tests/faults/test_retry_in_time.py",),
    ),
    Mutant(
        "what waits forgets its base with those before it",
        "adapters/postgres/parking.py",
        "else bases[parked.step.key],",
        'else "",',
        ("tests:tests/conformance/test_postgres_parking.py",),
    ),
    Mutant(
        "what waits for a discarded event waits for good",
        "operate/dead_letters.py",
        '" AND e.base = %s AND NOT %s), gone',
        '" AND e.base = %s AND NOT %s AND false), gone',
        ("tests:tests/conformance/test_postgres_parking.py",),
    ),
    Mutant(
        "a retry trusts that the store has what an earlier one wrote",
        "operate/dead_letters.py",
        "if released.too_early and (before",
        "if False and (before",
        ("tests:tests/faults/test_retry_in_time.py",),
    ),
    Mutant(
        "the model of parking forgets a base",
        "adapters/memory/parking.py",
        "else tables.parked_bases[unit, step.key]",
        'else ""',
        ("tests:tests/conformance/test_memory_parking.py",),
    ),
    Mutant(
        "slot that somebody advanced goes unnoticed",
        "core/history.py",
        "seen.slot_confirmed_lsn > known.confirmed_lsn",
        "seen.slot_confirmed_lsn < known.confirmed_lsn",
        (_CORE,),
    ),
    Mutant(
        "broker ahead of the database goes unnoticed",
        "core/history.py",
        "newest.lsn > seen.flushed_lsn",
        "newest.lsn < 0",
        (_CORE,),
    ),
    Mutant(
        "read store ahead of the database goes unnoticed",
        "relay/relay.py",
        "newest = max(newest, await self._applied())",
        "await self._applied()",
        (_STAGES,),
    ),
    Mutant(
        "projection begins again at a bookmark that may still move",
        "operate/reset.py",
        "capture = await ledger.begun_again()",
        "capture = await ledger.history()",
        ("tests:tests/faults/test_simulation.py -k late",),
    ),
    Mutant(
        "reset that comes late empties the store all the same",
        "adapters/redis/seize.lua",
        "        return 0\n",
        "        local _ = 0\n",
        ("tests:tests/conformance -k redis",),
    ),
    Mutant(
        "reset that comes late empties the tables all the same",
        "adapters/postgres_store/store.py",
        "token >= begins[number].token",
        "False",
        ("tests:tests/conformance -k postgres_store",),
    ),
    Mutant(
        "reset whose token is not above the store's",
        "operate/reset.py",
        "known.token if known else 0",
        "0",
        ("tests:tests/acceptance/test_reset.py",),
    ),
    Mutant(
        "reset that comes late forgets what its successor has parked",
        "operate/reset.py",
        'USING (partition, token)"\n'
        '    " WHERE l.app = %s AND l.projection = %s AND l.owner = %s FOR UPDATE OF l),"\n',
        'USING (partition)"\n'
        '    " WHERE l.app = %s AND l.projection = %s AND (l.owner = %s OR true) FOR UPDATE OF l),"\n',
        ("tests:tests/acceptance/test_reset.py",),
    ),
    Mutant(
        "checkpoint inside a frame passes over its rest",
        "adapters/nats/frames.py",
        "[offsets.before] * (count - 1)",
        "[offsets.after] * (count - 1)",
        ("tests:tests/adapters/test_nats_mixed.py tests/adapters/test_nats_frames.py",),
    ),
    Mutant(
        "pull that was used up exactly is waited for",
        "adapters/nats/subscription.py",
        "        if self._outstanding_bytes <= 0 or self._outstanding < 0:\n",
        "        if self._outstanding < 0:\n",
        ("tests:tests/adapters/test_nats_pull.py",),
    ),
    Mutant(
        "late transactions skipped",
        "core/ticking.py",
        "tuple(sorted(xid for xid in older.running if newer.sees(xid)))",
        "()",
        ("tests:tests/core/test_ticking.py",),
    ),
    Mutant(
        "rows in the order of their transactions",
        "adapters/postgres/polling.py",
        """\
    f" SELECT {_COLUMNS}, seq FROM {{table}} WHERE xid >= {{first}}::xid8 AND xid < {{end}}::xid8"
    " AND NOT xid = ANY({without}::xid8[])"
    f" UNION ALL SELECT {_COLUMNS}, seq FROM {{table}} WHERE xid = ANY({{late}}::xid8[])"
    " ORDER BY seq, id\"""",
        """\
    f" SELECT {_COLUMNS}, ROW(xid, seq) AS place"
    " FROM {table} WHERE xid >= {first}::xid8 AND xid < {end}::xid8"
    " AND NOT xid = ANY({without}::xid8[])"
    f" UNION ALL SELECT {_COLUMNS}, ROW(xid, seq) FROM {{table}} WHERE xid = ANY({{late}}::xid8[])"
    " ORDER BY place, id\"""",
        ("tests:tests/adapters/test_polling.py",),
    ),
    Mutant(
        "a tick does not wait for the disk",
        "adapters/postgres/sql/003_polling.sql",
        "PERFORM set_config('synchronous_commit', 'on', true)",
        "PERFORM set_config('synchronous_commit', 'off', true)",
        ("tests:tests/adapters/test_polling.py -k disk",),
    ),
    Mutant(
        "slot that is gone is made again in the same history",
        "core/history.py",
        "if not seen.slot_exists:",
        "if not seen.slot_exists and False:",
        ("tests:tests/core/test_history.py",),
    ),
    Mutant(
        "positions of a document compared as numbers",
        "adapters/redis/apply.lua",
        "if #has ~= #new or has >= new or string.sub(has, 1, #prefix) ~= prefix then",
        "local function number(text)\n"
        "                local lsn = tonumber(string.sub(text, #prefix + 10, #prefix + 25), 16) or 0\n"
        "                return lsn * 4096 + (tonumber(string.sub(text, -8), 16) or 0)\n"
        "            end\n"
        "            local older = string.sub(has, 1, #prefix + 8) < string.sub(new, 1, #prefix + 8)\n"
        "            if #has ~= #new or string.sub(has, 1, #prefix) ~= prefix\n"
        "                or not (older or number(has) < number(new)) then",
        ("tests:tests/conformance/test_redis_store.py -k overwritten",),
    ),
    Mutant(
        "script that writes before it has checked everything",
        "adapters/redis/apply.lua",
        "local count = #KEYS - 3\n",
        "if checkpoint ~= '' then\n"
        "    redis.call('HSET', KEYS[1], partition, checkpoint)\n"
        "end\n"
        "local count = #KEYS - 3\n",
        ("tests:tests/conformance/test_redis_store.py",),
    ),
    Mutant(
        "script that the server has forgotten is not sent again",
        "adapters/redis/store.py",
        '            return await execute("EVAL", script.text, keys, *arguments)\n',
        "            if script in self._known:\n"
        "                raise\n"
        "            self._known.add(script)\n"
        '            return await execute("EVAL", script.text, keys, *arguments)\n\n'
        "    _known: ClassVar[set[Script]] = set()\n",
        ("tests:tests/conformance/test_redis_store.py -k forgotten",),
    ),
    Mutant(
        "acknowledgement does not prove the messages before it",
        "adapters/nats/broker.py",
        "        if sequence != expected:\n",
        "        if sequence != expected and False:\n",
        ("tests:tests/conformance/test_nats_broker.py -k proves",),
    ),
    Mutant(
        "stream that drops its oldest messages is taken",
        "adapters/nats/broker.py",
        "config.discard != DiscardPolicy.NEW and limited",
        "config.discard != DiscardPolicy.NEW and limited and False",
        ("tests:tests/conformance/test_nats_broker.py -k drop",),
    ),
    Mutant(
        "read store that evicts documents is taken",
        "adapters/redis/store.py",
        '_SAFE_POLICIES = ("noeviction",)',
        '_SAFE_POLICIES = ("noeviction", "allkeys-lru")',
        ("tests:tests/faces/test_refusals.py -k evict",),
    ),
    Mutant(
        "owners that applied nothing are not counted",
        "adapters/postgres/leases.py",
        "starts = starts + 1,",
        "starts = 1,",
        ("tests:tests/conformance/test_postgres_leases.py",),
    ),
    Mutant(
        "document freed while an event is being parked behind it",
        "operate/dead_letters.py",
        '_DOCUMENT + " FOR UPDATE"',
        "_DOCUMENT",
        ("tests:tests/faults/test_dead_letters.py -k behind",),
    ),
    Mutant(
        "watermark ahead of what was shipped",
        "core/shipping.py",
        "Position(self._origin.epoch, self._settled, 0))",
        "Position(self._origin.epoch, max(self._settled, self._taken + 1), 0))",
        ("tests:tests/core/test_shipping.py",),
    ),
    Mutant(
        "process that hangs stays alive",
        "apps/stall.py",
        "if now - looked_at > 3 * _LOOK_EVERY:",
        "if now > looked_at:",
        ("tests:tests/faults/test_fatal_handlers.py -k hangs",),
    ),
    Mutant(
        "zombie not fenced in PostgreSQL",
        "adapters/postgres_store/statements.py",
        " AND checkpoint = %(expected)s RETURNING 1)",
        " AND (checkpoint = %(expected)s OR true) RETURNING 1)",
        ("tests:tests/conformance/test_postgres_store.py -k fences",),
    ),
    Mutant(
        "documents in PostgreSQL written without compare-and-set",
        "adapters/postgres_store/statements.py",
        "coalesce(bool_and(g.positions = (%(expected)s::jsonb ->> g.key)), true)",
        "coalesce(bool_and(true OR g.positions = (%(expected)s::jsonb ->> g.key)), true)",
        ("tests:tests/conformance/test_postgres_store.py",),
    ),
    Mutant(
        "documents in PostgreSQL overwritten whatever they hold",
        "adapters/postgres_store/statements.py",
        "WHERE d.positions = '' OR (starts_with(d.positions, %(prefix)s)",
        "WHERE true OR d.positions = '' OR (starts_with(d.positions, %(prefix)s)",
        ("tests:tests/conformance/test_postgres_store.py -k overwritten",),
    ),
    Mutant(
        "confirmed before the store has it for good",
        "core/durability.py",
        "noted[0][0] <= now - self._delay",
        "noted[0][0] <= now",
        ("tests:tests/core/test_durability.py",),
    ),
)
