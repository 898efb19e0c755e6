"""The user that PostgreSQL runs as when we are root, which it refuses to run as.

`nobody` first: the server trusts every local connection, so its user should own nothing, and
the user `postgres` of the system may own real databases. No user is ever created.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from readside.core.errors import SettingsError, UnavailableError

_CANDIDATES = ("nobody", "postgres", "daemon")


@dataclass(frozen=True)
class Account:
    """An unprivileged user of the system."""

    uid: int
    gid: int


def server_account(data: Path) -> Account | None:
    """The user to run PostgreSQL as on this data directory; None is ourselves.

    Raises:
        SettingsError: we are not root and the data belongs to another user.
        UnavailableError: we are root and the system knows no unprivileged user.
    """
    owner = data.stat() if data.exists() else None
    if os.geteuid() != 0:
        if owner and owner.st_uid != os.geteuid():
            raise SettingsError(
                f"{data} belongs to user {owner.st_uid}, we are {os.geteuid()}.",
                mend="run as that user, or choose another directory",
            )
        return None
    if owner and owner.st_uid != 0:  # whoever made the data keeps it
        return Account(owner.st_uid, owner.st_gid)
    for name in _CANDIDATES:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise UnavailableError(
        f"PostgreSQL does not run as root, and none of {', '.join(_CANDIDATES)} exists.",
        mend="run as another user",
    )


def may_reach(account: Account, path: Path) -> bool:
    """Whether the user may read and enter `path` and enter all folders above it."""
    path = path.resolve()
    return _allows(account, path, 0o5) and all(
        _allows(account, folder, 0o1) for folder in path.parents
    )


def _allows(account: Account, path: Path, wanted: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
    return found.st_mode >> shift & wanted == wanted


def reachable_programs(folder: Path, account: Account) -> Path:
    """`folder` of PostgreSQL's programs, or a copy of it where the user may reach it.

    A virtual environment below /root is closed to everybody else. PostgreSQL resolves its own
    path to find its libraries, so an open file descriptor is not enough; we neither open other
    people's folders nor give the server a capability to read everything, we copy 40 MB once.

    Raises:
        UnavailableError: there is no place for the copy.
    """
    install = folder.resolve().parent
    needed = [install / part for part in ("bin/postgres", "bin/initdb", "lib", "share")]
    if all(may_reach(account, path) for path in needed if path.exists()):
        return folder
    seen = (install / "bin/postgres").stat()
    identity = f"{install} {seen.st_size} {seen.st_mtime_ns}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    try:
        copy = _copied(install, _place(account) / f"postgresql-{key}")
    except OSError as error:
        raise UnavailableError(
            f"{install} is closed to user {account.uid} and cannot be copied: {error}.",
            mend="install where every user may read, or set READSIDE_POSTGRES_BIN",
        ) from error
    return copy / "bin"


def _place(account: Account) -> Path:
    for place in (Path("/var/lib/readside"), Path(tempfile.gettempdir()) / "readside-root"):
        with suppress(OSError):
            place.mkdir(mode=0o755, exist_ok=True)
            found = place.lstat()
            # What root is going to start must not be something that others have put there.
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o22
            if ours and may_reach(account, place):
                return place
    raise PermissionError("neither /var/lib nor the temporary directory can hold it")


def _copied(install: Path, place: Path) -> Path:
    # Wheels keep their libraries beside the package and find them by relative paths.
    copy = place / install.parent.name / install.name
    if place.is_dir():
        return copy
    libraries = install.parent.with_name(install.parent.name + ".libs")
    staged = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        ignored = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(install, staged / install.parent.name / install.name, ignore=ignored)
        if libraries.is_dir():
            shutil.copytree(libraries, staged / libraries.name)
        _open_to_all(staged)
        staged.rename(place)
    except OSError:
        if not place.is_dir():  # else another process was quicker, which is as good
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return copy


def _open_to_all(tree: Path) -> None:
    tree.chmod(0o755)
    for path in tree.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
