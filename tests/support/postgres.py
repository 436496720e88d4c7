"""A PostgreSQL server for the tests: one that is told by TIERWISE_TEST_POSTGRES_DSN, or one of its own.

    python -m tests.support.postgres COMMAND...

starts a server in a temporary folder, on a free port of loopback, runs the command with the variable set, and
stops it. Needs PostgreSQL's binaries, nothing else; as root, the server runs as another user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import make_url, text

VARIABLE = "TIERWISE_TEST_POSTGRES_DSN"
_INSTALL = (
    "PostgreSQL's initdb and pg_ctl were not found. Install them (Debian, Ubuntu: apt-get install postgresql; "
    f"macOS: brew install postgresql), or set {VARIABLE}=postgresql://user@host/database to use a server of yours."
)


def binary(name: str) -> Path | None:
    """One of PostgreSQL's programs, on the path or where Debian puts it; the newest."""
    if found := shutil.which(name):
        return Path(found)
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), default=None, key=lambda path: path.parts[-3])


@contextmanager
def server() -> Iterator[str]:
    """A new server's URL. Raises FileNotFoundError where there are no binaries."""
    initdb, pg_ctl = binary("initdb"), binary("pg_ctl")
    if initdb is None or pg_ctl is None:
        raise FileNotFoundError(_INSTALL)
    with tempfile.TemporaryDirectory(prefix="tierwise-pg-") as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL will not run as root
            names = {entry.pw_name for entry in pwd.getpwall()}
            name = "postgres" if "postgres" in names else "nobody"
            os.chown(folder, pwd.getpwnam(name).pw_uid, -1)
            as_user = {"user": name, "extra_groups": []}
        data = f"{folder}/data"
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"

        def run(*command: object) -> None:
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, check=False, cwd=folder, **as_user
            )
            if done.returncode:
                raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")

        run(initdb, "-D", data, "-U", "tierwise", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        run(pg_ctl, "-D", data, "-l", f"{folder}/log", "-o", options, "-w", "start")
        try:
            yield f"postgresql://tierwise@127.0.0.1:{port}/postgres"
        finally:
            run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")


# --- databases of a test's own ---------------------------------------------------------------


def dsn() -> str:
    """The server's URL; empty where there is none to test on."""
    return os.environ.get(VARIABLE, "")


@contextmanager
def database(name: str) -> Iterator[str]:
    """The URL of a new, empty database, dropped afterwards."""
    url = make_url(dsn())
    engine = sqlalchemy.create_engine(url.set(drivername="postgresql+pg8000"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        engine.dispose()


class Proxy:
    """Between a client and the server: passes everything on, until it is told to refuse or to swallow it."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._passes = threading.Event()
        self._passes.set()
        self._refuses = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The server's URL, by way of this."""
        return self._url.set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)

    def refuse(self) -> None:
        """Cut every connection and take no new one."""
        self._refuses = True
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Keep everything and pass nothing on."""
        self._passes.clear()

    def heal(self) -> None:
        """As at first."""
        self._refuses = False
        self._passes.set()

    def close(self) -> None:
        """No more of it."""
        self.heal()
        self.refuse()
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._refuses:
                    client.close()
                    continue
                upstream = socket.create_connection((self._url.host or "localhost", self._url.port or 5432))
                self._open += [client, upstream]
                for ends in ((client, upstream), (upstream, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._passes.wait()
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def main(command: list[str]) -> int:
    """The command's exit code; 2 where no server can be had."""
    if dsn():
        return subprocess.call(command)
    try:
        with server() as url:
            return subprocess.call(command, env={**os.environ, VARIABLE: url})
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
