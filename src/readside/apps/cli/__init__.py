"""The command line: ``readside --help``. Declarations only; the work is imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from readside import __version__

cli = App(
    name="readside",
    help="Keeps read models in step with PostgreSQL: what you write is what you read, a moment later.",
    help_epilogue="See it work: readside demo",
    version=__version__,
    version_flags=["--version"],
    help_format="plaintext",  # half as long to print as markdown
)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for scripts.")]
Target = Annotated[
    str, Parameter(help="Where the app is, as module:attribute, for example shop.main:app.")
]


def main() -> None:
    """Parse, work, and exit with the code of the command."""
    result = cli(result_action="return_value")
    sys.exit(result if isinstance(result, int) else 0)


def _bench() -> Callable[..., Coroutine[Any, Any, int]]:
    from readside.apps.process import FAILED, complain  # noqa: PLC0415 - as all of them
    from readside.core.errors import UnavailableError  # noqa: PLC0415

    try:
        from readside.apps.bench import bench  # noqa: PLC0415
    except ModuleNotFoundError as error:
        complain(
            UnavailableError(
                f"The bench needs the module {error.name}.", mend="pip install 'readside[bench]'"
            )
        )
        sys.exit(FAILED)
    return bench


def _examples(*lines: str) -> str:
    return "\n    ".join(("Examples:", *lines))


@cli.command(
    help_epilogue=_examples(
        "readside demo",
        "readside demo --users 5000 --rate 1000 --json",
        "readside demo --store postgres --keep",
    )
)
def demo(
    *,
    users: Annotated[int, Parameter(help="How many users to create.")] = 2000,
    rate: Annotated[int, Parameter(help="Users created in a second.")] = 500,
    broker: Annotated[
        Literal["nats", "direct"], Parameter(help="Through NATS JetStream, or without a broker.")
    ] = "nats",
    store: Annotated[
        Literal["valkey", "postgres"],
        Parameter(help="Read from Valkey, or from a table in the same PostgreSQL."),
    ] = "valkey",
    json: Json = False,
    keep: Annotated[
        bool, Parameter(negative="", help="Leave everything running until Ctrl-C, for a look.")
    ] = False,
) -> int:
    """Show the whole pipeline on real servers: create users, follow one, check every one.

    Starts PostgreSQL, NATS and Valkey of its own, on free ports and in a
    temporary directory, and leaves nothing behind. Exits with 0 only if every
    user is in the read store and right.
    """
    from readside.apps.demo import show  # noqa: PLC0415 - keeps --help fast
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(
        lambda: show(users=users, rate=rate, broker=broker, store=store, json=json, keep=keep)
    )


@cli.command(
    help_epilogue=_examples(
        "readside bench --quick",
        "readside bench --plot bench.svg --json",
        "readside bench --only direct,latency --rounds 3",
        "READSIDE_WRITE_STORE=postgresql://owner@host/db readside bench",
    )
)
def bench(
    *,
    quick: Annotated[
        bool, Parameter(negative="", help="The core of it, within a minute on two cores.")
    ] = False,
    rounds: Annotated[
        int | None, Parameter(help="How often everything is measured; 5, quick 3.")
    ] = None,
    events: Annotated[
        int | None, Parameter(help="Events of the backlog; 300000, quick 100000.")
    ] = None,
    only: Annotated[
        str,
        Parameter(help="Parts, with commas: limit, direct, nats, frames, latency, record, growth."),
    ] = "",
    growth: Annotated[
        bool, Parameter(negative="", help="With --quick: also ten times everything.")
    ] = False,
    json: Json = False,
    plot: Annotated[Path | None, Parameter(help="Write a picture, SVG, into this file.")] = None,
) -> int:
    """Measure readside on this machine, beside what PostgreSQL itself can send.

    Starts servers of its own in a temporary directory where none are configured, and leaves nothing
    behind. Throughput is a ratio to pg_recvlogical on the same backlog. Every document is checked:
    exits with 1 only if one is wrong, never because something is slow. How to read it: docs/performance.md
    """
    from readside.apps.process import run as process  # noqa: PLC0415 - keeps --help fast

    work = _bench()
    return process(
        lambda: work(
            quick=quick,
            rounds=rounds,
            events=events,
            only=only,
            growth=growth,
            json=json,
            plot=plot,
        )
    )


@cli.command(
    help_epilogue=_examples(
        "readside init shop.main:app",
        "READSIDE_WRITE_STORE=postgresql://owner@host/db readside init shop.main:app",
    )
)
def init(target: Target, *, json: Json = False) -> int:
    """Install readside into the write store: schema, publication, replication slot.

    Safe to repeat, also by two at once. Needs a user who may create schemas
    and has REPLICATION.
    """
    from readside.apps.cli.service import init as work  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(lambda: work(load_app(target), json=json))


@cli.command(
    help_epilogue=_examples(
        "readside run shop.main:app",
        "readside run shop.main:app --workers 4",
        "readside run shop.main:app --role relay --verbose",
    )
)
def run(
    target: Target,
    *,
    role: Annotated[
        Literal["all", "relay", "projector"], Parameter(help="What this process does.")
    ] = "all",
    workers: Annotated[
        int,
        Parameter(
            validator=Number(gte=1),
            help="Processes that project; from 2 on, this one is the relay and watches them.",
        ),
    ] = 1,
    verbose: Annotated[bool, Parameter(negative="", help="Log details.")] = False,
) -> int:
    """Run relay and projectors of an app until Ctrl-C or SIGTERM.

    Start it as often as you like: one relay works and the others stand by,
    projectors share the partitions. A server that is away is waited for.
    """
    from readside.apps.cli.service import run as work  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(
        lambda: work(load_app(target), target, role, processes=workers, verbose=verbose),
        service=True,
    )


@cli.command(
    help_epilogue=_examples(
        "readside servers", "readside servers --directory /tmp/play", "readside servers --json"
    )
)
def servers(
    *,
    directory: Annotated[Path, Parameter(help="Where their data lives.")] = Path(".readside"),
    json: Json = False,
) -> int:
    """Run the embedded PostgreSQL, NATS and Valkey by themselves, until Ctrl-C."""
    from readside.apps.cli.servers import serve  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(lambda: serve(directory, json=json), service=True)


@cli.command(
    help_epilogue=_examples(
        "readside status shop.main:app",
        "readside status shop.main:app --watch",
        "readside status shop.main:app --json",
    )
)
def status(
    target: Target,
    *,
    json: Json = False,
    watch: Annotated[
        bool, Parameter(negative="", help="Again every second, until Ctrl-C.")
    ] = False,
    partitions: Annotated[
        bool, Parameter(negative="", help="Every partition, however many there are.")
    ] = False,
) -> int:
    """Show how far relay and projections are: position, lag, rate, state.

    Exits with 1 if something needs attention.
    """
    from readside.apps.cli.status import show  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(
        lambda: show(load_app(target), target, json=json, watch=watch, every_partition=partitions)
    )


@cli.command
def version() -> None:
    """Print the version."""
    print(__version__)


Projection = Annotated[str | None, Parameter(help="Only documents of this projection.")]
Key = Annotated[str | None, Parameter(help="Only the document of this key.")]
ErrorText = Annotated[str | None, Parameter(help="Only those whose error contains this text.")]
All = Annotated[bool, Parameter(name="--all", negative="", help="Take every parked document.")]
Yes = Annotated[bool, Parameter(negative="", help="Do not ask.")]

parked = App(name="dead-letters", help="Documents that cannot move on, and their events.")
cli.command(parked)


@parked.command(
    name="list",
    help_epilogue=_examples(
        "readside dead-letters list shop.main:app",
        "readside dead-letters list shop.main:app --error ZeroDivisionError --json",
    ),
)
def list_(
    target: Target,
    *,
    projection: Projection = None,
    key: Key = None,
    error: ErrorText = None,
    json: Json = False,
) -> int:
    """List the parked documents, the longest parked first."""
    from readside.apps.cli import dead_letters as work  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(
        lambda: work.find(load_app(target), work.Choice(projection, key, error), json=json)
    )


@parked.command(
    help_epilogue=_examples("readside dead-letters show shop.main:app --projection user --key 42")
)
def show(
    target: Target,
    *,
    projection: Projection = None,
    key: Key = None,
    error: ErrorText = None,
    json: Json = False,
) -> int:
    """Show parked documents in full: error, traceback, waiting events with their payloads."""
    from readside.apps.cli import dead_letters as work  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(
        lambda: work.show(load_app(target), work.Choice(projection, key, error), json=json)
    )


@parked.command(
    help_epilogue=_examples(
        "readside dead-letters retry shop.main:app --projection user --key 42",
        "readside dead-letters retry shop.main:app --all",
    )
)
def retry(
    target: Target,
    *,
    projection: Projection = None,
    key: Key = None,
    error: ErrorText = None,
    everything: All = False,
    json: Json = False,
) -> int:
    """Fold parked events again, in order, with the code as it is now.

    Safe to interrupt and to repeat, while the projectors run. Exits with 1 if a document still
    cannot move on.
    """
    from readside.apps.cli import dead_letters as work  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    choice = work.Choice(projection, key, error)
    return process(
        lambda: work.retry(load_app(target), target, choice, everything=everything, json=json)
    )


@parked.command(
    help_epilogue=_examples(
        "readside dead-letters discard shop.main:app --projection user --key 42"
    )
)
def discard(
    target: Target,
    *,
    projection: Projection = None,
    key: Key = None,
    error: ErrorText = None,
    everything: All = False,
    whole: Annotated[
        bool, Parameter(negative="", help="All waiting events, not only the failing one.")
    ] = False,
    json: Json = False,
) -> int:
    """Give up the failing event of each chosen document; the view goes on without it.

    Free the document with `retry` afterwards.
    """
    from readside.apps.cli import dead_letters as work  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    choice = work.Choice(projection, key, error)
    return process(
        lambda: work.discard(
            load_app(target), choice, everything=everything, whole=whole, json=json
        )
    )


@cli.command(
    help_epilogue=_examples(
        "readside reset shop.main:app user", "readside reset shop.main:app user --give-up --yes"
    )
)
def reset(
    target: Target,
    projection: Annotated[str, Parameter(help="Which projection.")],
    *,
    give_up: Annotated[
        bool,
        Parameter(
            negative="",
            help="Begin where PostgreSQL's log reaches back to, without what came before.",
        ),
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> int:
    """Empty a projection and let it begin again, with the first event or with what there is.

    The projectors may run. Readers get an error until it is empty, and see it fill up after that.
    """
    from readside.apps.cli import operate as work  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(
        lambda: work.reset(load_app(target), projection, give_up=give_up, yes=yes, json=json)
    )


@cli.command(help_epilogue=_examples("readside forget shop.main:app old_users --documents"))
def forget(
    target: Target,
    projection: Annotated[str, Parameter(help="Which projection.")],
    *,
    documents: Annotated[
        bool, Parameter(negative="", help="Remove its documents from the read store, too.")
    ] = False,
    yes: Yes = False,
) -> int:
    """Let go of a projection which the code no longer declares: PostgreSQL keeps WAL for it."""
    from readside.apps.cli import operate as work  # noqa: PLC0415
    from readside.apps.cli.target import load_app  # noqa: PLC0415
    from readside.apps.process import run as process  # noqa: PLC0415

    return process(lambda: work.forget(load_app(target), projection, documents=documents, yes=yes))
