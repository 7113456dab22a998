"""What a confined process can no longer do, tried in a process of its own."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux does this")


def confined(tmp_path: Path, code: str) -> str:
    """What ``code`` prints after ``done = confine(...)``; its working folder is its own."""
    own = tmp_path / "own"
    own.mkdir()
    start = """
        import os, resource, socket, sys
        from pathlib import Path
        from modelaudit.isolation.limits import Limits
        from modelaudit.isolation.sandbox import confine, limit_memory
        done = confine(Limits(open_files=64, file_size=1000), Path.cwd())
        """
    script = textwrap.dedent(start) + textwrap.dedent(code)
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{script}"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=own, check=True)
    return run.stdout.strip()


def landlock_version() -> int:
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1))


@LINUX
def test_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = confined(
            tmp_path,
            f"""
            try:
                socket.create_connection(("127.0.0.1", {port}), 5)
                print("connected", done["network"])
            except OSError:
                print("refused", done["network"])
            """,
        )
    if found.startswith("connected not limited"):
        pytest.skip(f"this system has no namespaces for users: {found}")
    assert found == "refused none"


@LINUX
def test_files_are_written_in_the_own_folder_only(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    found = confined(
        tmp_path,
        f"""
        victim = Path({str(victim)!r})
        for action in (lambda: victim.write_text("x"), victim.unlink,
                       lambda: victim.with_name("new").write_text("x")):
            try:
                action()
                print("done", end=" ")
            except PermissionError:
                print("denied", end=" ")
        Path("mine").write_text("x")
        print(victim.read_text(), "|", done["files"])
        """,
    )
    if "not limited" in found:
        pytest.skip(f"this system has no Landlock: {found}")
    assert found == "denied denied denied precious | writes in an own folder only"


@LINUX
@pytest.mark.skipif(any(Path("/dev").glob("nvidia*")), reason="a GPU's driver needs /dev/shm")
def test_neither_devices_nor_the_kernel_nor_other_processes_are_touched(tmp_path: Path) -> None:
    found = confined(
        tmp_path,
        """
        def works(action):
            try:
                action()
            except OSError:
                return False
            return True

        def write(path):
            os.close(os.open(path, os.O_WRONLY))

        parent = os.getppid()
        paths = ["/proc/sys/kernel/core_pattern", f"/proc/{parent}/oom_score_adj"]
        print(done["files"])
        print(any(works(lambda: write(path)) for path in paths))
        print(works(lambda: Path(f"/dev/shm/modelaudit-{parent}").write_text("x")))
        print(works(lambda: write("/dev/null")), works(lambda: os.kill(os.getpid(), 0)))
        print(works(lambda: os.kill(parent, 0)))
        """,
    )
    done, *writes, signals = found.splitlines()
    if "not limited" in done:
        pytest.skip(f"this system has no Landlock: {done}")
    assert writes == ["False", "False", "True True"]
    if landlock_version() >= 6:
        assert signals == "False"


@LINUX
def test_files_stay_small_and_few(tmp_path: Path) -> None:
    found = confined(
        tmp_path,
        """
        try:
            Path("big").write_bytes(bytes(2000))
        except OSError as error:
            print(error.strerror)
        try:
            kept = [open(os.devnull) for _ in range(100)]
        except OSError as error:
            print(error.strerror)
        print(resource.getrlimit(resource.RLIMIT_CORE)[0])
        """,
    )
    assert found.splitlines() == ["File too large", "Too many open files", "0"]


@LINUX
def test_memory_is_limited_beyond_what_is_in_use(tmp_path: Path) -> None:
    found = confined(
        tmp_path,
        """
        print(limit_memory(200 * 2**20, "cpu"))
        small = bytearray(100 * 2**20)
        try:
            bytearray(200 * 2**20)
        except MemoryError:
            print("refused")
        """,
    )
    assert found.splitlines() == ["200 MiB", "refused"]
