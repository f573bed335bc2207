"""A real PostgreSQL server on a loopback port, with its data in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from tests.project.running import environment
from tests.project.server import WHILE_WE_LIVE

USER, PASSWORD = "wastelens", "not to be seen"
PATIENCE_S = 60
# Nothing here has to outlive a power cut.
SETTINGS = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


def _programs() -> Path:
    """The folder of PostgreSQL's programs; skips where there is none."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3].split(".")[0])
    )
    found = str(debian[-1]) if debian else shutil.which("initdb")
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    return Path(found).parent


class PostgreSQL:
    """A server with a superuser who has a password."""

    def __init__(self) -> None:
        self._programs = _programs()
        # Not below pytest's folders: root has to start it as another user, who cannot enter those.
        self.folder = Path(tempfile.mkdtemp(prefix="wastelens-postgresql-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def start(self) -> None:
        """Make its data where there is none yet, and return as soon as it answers."""
        data = self.folder / "data"
        if not data.exists():
            password = self.folder / "password"
            password.write_text(PASSWORD)
            if os.geteuid() == 0:
                shutil.chown(self.folder, "postgres")
                shutil.chown(password, "postgres")
            trusted = ("--auth", "scram-sha-256", "--pwfile", str(password))
            self._run("initdb", "-D", str(data), "--username", USER, *trusted, "--no-sync", "--encoding", "UTF8")
        where = ("-D", str(data), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-k", str(self.folder))
        with (self.folder / "output.txt").open("a") as output:
            self._process = subprocess.Popen(
                (
                    "bash",
                    "-c",
                    WHILE_WE_LIVE,
                    "bash",
                    *self._as_user(),
                    str(self._programs / "postgres"),
                    *where,
                    *SETTINGS,
                ),
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while self._asked("pg_isready").returncode:
            if self._process.poll() is not None:
                pytest.skip(f"PostgreSQL cannot start here: {(self.folder / 'output.txt').read_text()[-300:]}")
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it; its data are left, and it can be started again."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """Kill it, and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def database(self) -> str:
        """The address of a new database."""
        self._databases += 1
        name = f"database{self._databases}"
        answer = self._asked("createdb", name)
        assert answer.returncode == 0, answer.stderr
        return f"postgresql://{USER}:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{self.port}/{name}"

    def _asked(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        server = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)
        command = (str(self._programs / program), *server, *arguments)
        known = environment(PGPASSWORD=PASSWORD)
        return subprocess.run(command, capture_output=True, text=True, env=known, check=False, timeout=PATIENCE_S)

    def _run(self, program: str, *arguments: str) -> None:
        command = (*self._as_user(), str(self._programs / program), *arguments)
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=environment(), check=False)
        if done.returncode:
            pytest.skip(f"PostgreSQL cannot start here: {done.stderr.strip()[-300:]}")

    @staticmethod
    def _as_user() -> tuple[str, ...]:
        """PostgreSQL refuses to run as root."""
        return ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
