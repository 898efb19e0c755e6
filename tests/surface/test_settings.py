from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readside.core.errors import SettingsError
from readside.settings import Settings, load

DEFAULTS = Settings()


@pytest.fixture
def file(tmp_path):
    """Writes a configuration file; returns the environment that names it."""

    def write(text: str | bytes) -> dict[str, str]:
        path = tmp_path / "shop.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return {"READSIDE_CONFIG": str(path)}

    return write


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No readside.toml of the developer's."""
    monkeypatch.chdir(tmp_path)


def test_nothing_configured_means_embedded_servers():
    settings = load({}, {})
    assert settings == DEFAULTS
    assert settings.embedded == {"postgres", "nats", "valkey"}


def test_what_is_configured_is_not_embedded():
    settings = load({"write_store": "postgresql://db/shop", "broker": "direct:"}, {})
    assert settings.embedded == {"valkey"}


def test_the_file_in_the_working_directory_is_read(tmp_path):
    (tmp_path / "readside.toml").write_text("partitions = 4\n")
    assert load({}, {}).partitions == 4


OTHERS: dict[str, Any] = {
    "write_store": "postgresql://db/shop",
    "broker": "nats://broker",
    "read_store": "redis://cache",
    "capture": "polling",
    "mode": "wait",
    "wait_timeout": 0.25,
    "outbox": "message",
    "directory": "/var/lib/shop",
    "partitions": 16,
    "max_payload": 1000,
    "retention_days": 3,
    "lease_seconds": 2.5,
    "stall_seconds": 12.5,
    "settle_delay": 0.5,
    "retained_wal_mb": 64,
    "pool_size": 3,
}


def test_every_setting_is_tried_here():
    assert set(OTHERS) == set(Settings.__struct_fields__)


@pytest.mark.parametrize("field", OTHERS)
def test_every_setting_comes_from_each_of_the_three_sources(field, file):
    value = OTHERS[field]
    toml = f'"{value}"' if isinstance(value, str) else str(value)
    for settings in (
        load({field: value}, {}),
        load({}, {f"READSIDE_{field.upper()}": str(value)}),
        load({}, file(f"{field} = {toml}\n")),
    ):
        assert getattr(settings, field) == value
        assert type(getattr(settings, field)) is type(getattr(DEFAULTS, field))
        assert settings != DEFAULTS


@given(st.none() | st.integers(1, 1024), st.none() | st.integers(1, 1024), st.booleans())
def test_arguments_go_before_the_environment_and_that_before_the_file(
    tmp_path_factory, argument, variable, named
):
    environment: dict[str, str] = {}
    if named:
        path = tmp_path_factory.getbasetemp() / "precedence.toml"
        path.write_text("partitions = 77\n")
        environment["READSIDE_CONFIG"] = str(path)
    if variable is not None:
        environment["READSIDE_PARTITIONS"] = str(variable)
    expected = argument or variable or (77 if named else DEFAULTS.partitions)
    assert load({"partitions": argument}, environment).partitions == expected


def test_without_an_environment_it_is_that_of_the_process(monkeypatch):
    monkeypatch.setenv("READSIDE_PARTITIONS", "5")
    assert load().partitions == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"partition": 8}, "'partition' in the arguments of App is not a setting"),
        ({"partitions": "many"}, "partitions in the arguments of App"),
        ({"partitions": 0}, "partitions is 0"),
        ({"partitions": -1}, "partitions is -1"),
        ({"partitions": 1025}, "partitions is 1025"),
        ({"max_payload": 0}, "max_payload is 0"),
        ({"retention_days": -3}, "retention_days is -3"),
        ({"pool_size": 0}, "pool_size is 0"),
        ({"lease_seconds": 0}, "lease_seconds is 0"),
        ({"lease_seconds": 61}, "lease_seconds is 61"),
        ({"stall_seconds": 0}, "stall_seconds is 0"),
        ({"settle_delay": -1}, "settle_delay is -1"),
        ({"mode": "sync"}, "mode in the arguments of App is 'sync'"),
        ({"wait_timeout": -1}, "wait_timeout is -1"),
        ({"wait_timeout": "inf"}, "wait_timeout is inf"),
        ({"settle_delay": "nan"}, "settle_delay is nan"),
        ({"retained_wal_mb": 0}, "retained_wal_mb is 0"),
        ({"lease_seconds": "nan"}, "lease_seconds is nan"),
        ({"lease_seconds": "inf"}, "lease_seconds is inf"),
        ({"write_store": "mysql://db/shop"}, "no URL of PostgreSQL"),
        ({"write_store": "host=db"}, "write_store is no URL"),
    ],
)
def test_a_wrong_setting_says_how_to_mend_it(arguments, said):
    with pytest.raises(SettingsError) as caught:
        load(arguments, {})
    assert said in caught.value.detail
    assert caught.value.mend


@pytest.mark.parametrize("text", ["partitions", "partitions = ", "[", b"\xff\xfe", "a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_refused_by_name(text, file):
    with pytest.raises(SettingsError, match=r"shop\.toml is no TOML") as caught:
        load({}, file(text))
    assert "write lines like" in caught.value.mend


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        load({}, {"READSIDE_CONFIG": str(tmp_path)})


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(SettingsError, match="does not exist") as caught:
        load({}, {"READSIDE_CONFIG": str(tmp_path / "shpo.toml")})
    assert "READSIDE_CONFIG" in caught.value.mend


def test_an_unknown_name_in_the_file_is_refused_with_the_known_ones(file):
    with pytest.raises(SettingsError, match=r"'brocker' in .* is not a setting") as caught:
        load({}, file("brocker = 'nats://broker'\n"))
    assert "broker" in caught.value.mend


def test_a_secret_is_in_no_error():
    with pytest.raises(SettingsError) as caught:
        load({"write_store": "mysql://user:s3cret@db"}, {})
    assert "s3cret" not in str(caught.value)
