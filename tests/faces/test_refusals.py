"""What waiting does not mend: one clear message with the mend, no traceback, no secret, exit code 1."""

from __future__ import annotations

import pytest

from readside.adapters.embedded.ports import LOOPBACK

SECRET = "s3cr3t-Pa55"


def refused(said, *words):
    assert said.code == 1, said.all
    assert said.out == ""
    assert [line[:10] for line in said.err.splitlines() if line[:1] != " "] == ["readside: "]
    assert "mend: " in said.err
    assert "Traceback" not in said.all
    assert SECRET not in said.all
    for word in words:
        assert word in said.err


@pytest.fixture
def jetstream(tmp_path):
    return f'jetstream {{ store_dir: "{tmp_path}" }}'


def user(strict, who, password=SECRET, database="readside"):
    port = strict.write_store.rpartition(":")[2].partition("/")[0]
    return f"postgresql://{who}:{password}@{LOOPBACK}:{port}/{database}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"broker": f"kafka://u:{SECRET}@host:1"}, ["kafka:", "nats", "READSIDE_BROKER"]),
        ({"read_store": "mongodb://host"}, ["mongodb:", "redis", "READSIDE_READ_STORE"]),
        ({"write_store": f"mysql://u:{SECRET}@host/db"}, ["write_store", "postgresql://"]),
        ({"broker": "localhost:4222"}, ["broker is no URL", "nats://"]),
        ({"broker": f"nats://u:{SECRET}@host:abc"}, ["port in broker"]),
        ({"read_store": f"redis://u:{SECRET}@host:abc/0"}, ["port in read_store"]),
        ({"write_store": f"postgresql://u:{SECRET}@host:abc/db"}, ["port in write_store"]),
        ({"partitions": "many"}, ["READSIDE_PARTITIONS", "'many'", "int"]),
        ({"partitions": "0"}, ["partitions is 0"]),
        ({"config": "nowhere.toml"}, ["nowhere.toml does not exist"]),
        ({"poolsize": "4"}, ["READSIDE_POOLSIZE", "READSIDE_POOL_SIZE"]),
    ],
)
def test_a_setting_that_cannot_be_right(desk, settings, words):
    desk.use(write_store=f"postgresql://u:{SECRET}@{LOOPBACK}:1/db", broker="direct:")
    desk.use(read_store=f"redis://{LOOPBACK}:1")
    desk.use(**settings)
    refused(desk.do("run", "shop:app"), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("broker = \n", ["readside.toml is no TOML", "line 1"]),
        ('wirte_store = "x"\n', ["'wirte_store' in readside.toml", "write_store"]),
        ('partitions = "many"\n', ["partitions in readside.toml", "'many'"]),
        ("[readside]\npartitions = 4\n", ["'readside' in readside.toml", "settings are"]),
    ],
)
def test_a_readside_toml_with_a_slip(desk, text, words):
    desk.write("readside.toml", text)
    refused(desk.do("run", "shop:app"), *words)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("shop", ["names no app", "shop:app"]),
        ("nowhere:app", ["no module 'nowhere'"]),
        ("shop:nothing", ["no 'nothing'", "shop:app"]),
        ("shop:User", ["no readside.App", "shop:app"]),
        ("shop.py:app", ["is a file", "shop:app"]),
        ("raises:app", ["RuntimeError: no luck", "raises.py, line 2"]),
        ("typo:app", ["SyntaxError", "typo.py, line 1"]),
        ("lacks:app", ["ModuleNotFoundError", "nowhere", "lacks.py, line 1"]),
        ("leaves:app", ["SystemExit", "leaves.py, line 1"]),
        ("twice:app", ["'user' exists already"]),
    ],
)
def test_a_target_that_is_no_app(desk, target, words):
    desk.write("raises.py", "import shop\nraise RuntimeError('no luck')\n")
    desk.write("typo.py", "def (:\n")
    desk.write("lacks.py", "import nowhere\n")
    desk.write("leaves.py", "raise SystemExit(3)\n")
    desk.write("twice.py", "from shop import *\napp.projection('user', User)\n")
    refused(desk.do("run", target), *words)


@pytest.mark.parametrize("who", ["plain", "mirror", "nobody"])
def test_a_user_whom_postgresql_does_not_let_in(desk, strict, who):
    desk.use(write_store=user(strict, who, SECRET + "x"), broker="direct:", read_store="redis://h")
    refused(desk.do("run", "shop:app"), "password authentication failed", "READSIDE_WRITE_STORE")


def test_a_database_that_is_not_there(desk, strict):
    url = strict.write_store.rpartition("/")[0] + "/nowhere"
    desk.use(write_store=url, broker="direct:", read_store="redis://h")
    refused(desk.do("run", "shop:app"), '"nowhere" does not exist', "READSIDE_WRITE_STORE")


def test_rights_that_are_missing_are_named_one_after_the_other(
    desk, strict, jetstream, nats, valkey, freed
):
    """From nothing to running, as a careful administrator gets there."""
    desk.use(write_store=strict.write_store, broker=nats(jetstream).url, read_store=valkey().url)
    for command in ("run", "status"):
        refused(desk.do(command, "shop:app"), "readside init")
    mirror = {"READSIDE_WRITE_STORE": user(strict, "mirror")}
    plain = {"READSIDE_WRITE_STORE": user(strict, "plain")}
    refused(desk.do("init", "shop:app", **mirror), "permission denied", "grant")
    freed(strict, desk.name)
    assert "replication slot" in desk.do("init", "shop:app").out
    assert "nothing to do" in desk.do("init", "shop:app").out
    refused(desk.do("run", "shop:app", **plain), "permission denied for schema", "grant")
    for role in ("plain", "mirror"):
        strict.sql(f"GRANT USAGE ON SCHEMA readside TO {role}")
        strict.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA readside TO {role}")
        strict.sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA readside TO {role}")
    refused(desk.do("run", "shop:app", **plain), "REPLICATION")
    refused(desk.do("run", "shop:app", READSIDE_PARTITIONS="4"), "8 partitions, not 4")
    refused(desk.do("init", "shop:app", READSIDE_PARTITIONS="4"), "8 partitions, not 4")
    desk.start("run", "shop:app").until("relay streaming; user following")


async def test_wal_that_is_not_logical(desk, own):
    own.sql("ALTER SYSTEM SET wal_level = replica")
    own.group["postgres"].kill()
    await own.group["postgres"].start()
    desk.use(**own.urls())
    refused(desk.do("init", "shop:app"), "wal_level", "ALTER SYSTEM SET wal_level = logical")


@pytest.fixture
def installed(desk, strict, freed):
    desk.use(write_store=strict.write_store)
    freed(strict, desk.name)
    assert desk.do("init", "shop:app", READSIDE_BROKER="direct:").code == 0
    return desk


@pytest.mark.parametrize("login", ["", "u:wrong@"])
def test_a_password_that_nats_does_not_take(installed, nats, valkey, jetstream, login):
    lock = f'authorization {{ user: u, password: "{SECRET}" }}'
    installed.use(broker=nats(jetstream, lock, user=login).url, read_store=valkey().url)
    refused(installed.do("run", "shop:app"), "Authorization Violation", "READSIDE_BROKER")


def test_nats_without_jetstream(installed, nats, valkey):
    installed.use(broker=nats().url, read_store=valkey().url)
    refused(installed.do("run", "shop:app"), "without JetStream", "nats-server -js")


def test_nats_that_takes_small_messages_only(installed, nats, valkey, jetstream):
    installed.use(broker=nats(jetstream, "max_payload: 1024").url, read_store=valkey().url)
    refused(installed.do("run", "shop:app"), "1024 bytes", "max_payload")


@pytest.mark.parametrize("login", ["", ":wrong@"])
def test_a_password_that_redis_does_not_take(installed, nats, valkey, jetstream, login):
    store = valkey("--requirepass", SECRET, user=login)
    installed.use(broker=nats(jetstream).url, read_store=store.url)
    refused(installed.do("run", "shop:app"), "READSIDE_READ_STORE")


def test_redis_that_would_evict_documents(installed, nats, valkey, jetstream):
    store = valkey("--maxmemory-policy", "allkeys-lru")
    installed.use(broker=nats(jetstream).url, read_store=store.url)
    refused(installed.do("run", "shop:app"), "allkeys-lru", "noeviction")


@pytest.mark.parametrize("arguments", [["rnu"], ["run"], ["run", "shop:app", "--rol", "relay"]])
def test_a_command_line_that_cannot_be_meant(desk, arguments):
    said = desk.do(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
