"""Starting the engine where it cannot start: one clear sentence with the remedy, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.engine.embedded import Control, EngineGone, launch
from ipshare.errors import EngineError, NoPrivilege
from ipshare.lab.netns import inside
from tests.engine_lab import empty_namespace, run


@pytest.fixture
def where() -> Iterator[str]:
    with empty_namespace() as name:
        yield name


@pytest.fixture
def engine(where: str, tmp_path: Path) -> Iterator[launch.Engine]:
    started = inside(where, lambda: launch.start(tmp_path / "s", workers=1, node="n1"))
    yield started
    if started.is_alive():
        started.terminate()


def start_again(where: str, path: Path, **options: str) -> launch.Engine:
    return inside(where, lambda: launch.start(path, workers=1, **options))


def refused(where: str, *words: str, options: tuple[str, ...], prefix: tuple[str, ...] = ()) -> str:
    """Runs the engine, which must not start; its exit code and sentence."""
    command = [*prefix, str(launch.binary()), "--json-errors", *options]
    done = inside(
        where, lambda: subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    )
    record = json.loads(done.stderr)
    assert record["exit"] == done.returncode != 0
    assert record["hint"]
    for word in words:
        assert word in record["error"], record
    assert "ips-" not in run(where, "ip -o link")
    return f"{record['exit']} {record['error']}"


def may_be_preferred() -> bool:
    """Whether this machine lets us."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        os.setpriority(os.PRIO_PROCESS, child.pid, -1)
    except PermissionError:
        return False
    finally:
        child.kill()
        child.wait()
    return True


def test_all_threads_have_the_niceness_that_was_asked_for(where: str, tmp_path: Path) -> None:
    """And its session's group, where there are such; without the privilege it starts all the same."""
    engine = inside(where, lambda: launch.start(tmp_path / "s", workers=2, nice=-7))
    try:
        wanted = -7 if may_be_preferred() else os.getpriority(os.PRIO_PROCESS, 0)
        tasks = [int(task.name) for task in Path(f"/proc/{engine.pid}/task").iterdir()]
        assert len(tasks) >= 3 and {os.getpriority(os.PRIO_PROCESS, task) for task in tasks} == {wanted}
        group = Path(f"/proc/{engine.pid}/autogroup")
        if wanted == -7 and group.exists():
            assert group.read_text().split()[-1] in ("-7", "0"), "0: the kernel groups otherwise"
    finally:
        engine.terminate()


def test_says_who_it_is(engine: launch.Engine, where: str, tmp_path: Path) -> None:
    with Control(tmp_path / "s") as control:
        hello = control.hello()
    assert (hello.pid, hello.workers, hello.node) == (engine.pid, 1, "n1")
    assert (hello.outer, hello.inner) == ("ips-out", "ips-in")
    assert len(hello.boot_id) == 32 and "tso" in hello.features
    assert inside(where, lambda: Path("/proc/thread-self/ns/net").stat().st_ino) == hello.netns
    assert f"{hello.outer_ifindex}: ips-out" in run(where, "ip -o link show ips-out")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert os.getsid(engine.pid) == engine.pid, "it would get its starter's signals"


def test_version_is_the_packages() -> None:
    import ipshare

    done = subprocess.run([launch.binary(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ipshare-engine {ipshare.__version__}\n"


def test_live_socket_is_refused(engine: launch.Engine, where: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="another engine serves") as error:
        start_again(where, tmp_path / "s", outer="other-o", inner="other-i")
    assert "stop it" in error.value.hint
    with Control(tmp_path / "s") as control:
        assert control.hello().pid == engine.pid, "the refused start took the socket away"


def test_taken_device_is_refused(engine: launch.Engine, where: str, tmp_path: Path) -> None:
    """Without TUNSETIFF's exclusive flag the second engine would join the first one's devices."""
    with pytest.raises(EngineError, match="ips-out exists already") as error:
        start_again(where, tmp_path / "other")
    assert "--outer" in error.value.hint
    assert not (tmp_path / "other").exists()


def test_device_of_another_kind_is_refused(where: str, tmp_path: Path) -> None:
    run(where, "ip link add ips-in type veth peer name x")
    with pytest.raises(EngineError, match="ips-in"):
        start_again(where, tmp_path / "s")
    assert "ips-out" not in run(where, "ip -o link")


def test_orderly_end_removes_socket_and_devices(engine: launch.Engine, where: str, tmp_path: Path) -> None:
    assert engine.terminate() == 0
    assert not (tmp_path / "s").exists()
    assert "ips-" not in run(where, "ip -o link")
    with pytest.raises(EngineGone, match="no engine answers"):
        Control(tmp_path / "s").hello()


def test_shutdown_by_request(engine: launch.Engine, tmp_path: Path) -> None:
    with Control(tmp_path / "s") as control:
        control.shutdown()
    assert engine.process.wait(10) == 0


def test_after_sigkill_the_same_start_works(engine: launch.Engine, where: str, tmp_path: Path) -> None:
    os.kill(engine.pid, signal.SIGKILL)
    engine.process.wait()
    assert "ips-" not in run(where, "ip -o link")
    again = start_again(where, tmp_path / "s")
    with Control(tmp_path / "s") as control:
        assert control.hello().pid == again.pid
    again.terminate()


def test_hang_up_and_broken_pipe_do_not_end_it(engine: launch.Engine, tmp_path: Path) -> None:
    os.kill(engine.pid, signal.SIGHUP)
    os.kill(engine.pid, signal.SIGPIPE)
    with Control(tmp_path / "s") as control:
        assert control.hello().pid == engine.pid


def test_a_file_in_the_sockets_place_is_not_deleted(where: str, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    sentence = refused(where, "no socket of ours", options=("--socket", str(tmp_path / "s")))
    assert sentence.startswith("6 ")
    assert (tmp_path / "s").read_text() == "precious"


def test_no_directory_for_the_socket(where: str, tmp_path: Path) -> None:
    assert refused(where, "cannot create", options=("--socket", str(tmp_path / "no/s"))).startswith("6 ")


@pytest.mark.parametrize("workers", [1, 2])
def test_too_few_open_files(
    where: str, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the limit is just too low for, it is said; nothing runs on without what it needs."""
    limited = tmp_path / "limited"
    limited.touch(0o755)
    real = launch.binary()
    monkeypatch.setenv("IPSHARE_ENGINE", str(limited))

    def starts(limit: int) -> bool:
        limited.write_text(f'#!/bin/sh\nulimit -n {limit}\nexec {real} "$@"\n')
        try:
            engine = inside(where, lambda: launch.start(tmp_path / "s", workers=workers, plain_io=True))
        except EngineError as error:
            assert "Too many open files" in error.message and error.hint
            return False
        assert engine.terminate() == 0
        return True

    first = 11 if workers == 1 else 13  # the descriptors of queues, workers and events come after
    assert [starts(limit) for limit in range(first, first + 5)] == [False] * 5
    assert starts(64)


def test_socket_path_too_long(where: str) -> None:
    assert refused(where, "longer than", options=("--socket", "/tmp/" + "x" * 200)).startswith("6 ")


def test_no_privilege(where: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    prefix = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
    sentence = refused(where, "no permission", options=("--socket", str(tmp_path / "s")), prefix=prefix)
    assert sentence.startswith("4 ")


def test_no_privilege_is_an_exception_of_its_own(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "engine"
    wrapper.write_text(
        f'#!/bin/sh\nexec setpriv --inh-caps=-all --bounding-set=-all {launch.binary()} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("IPSHARE_ENGINE", str(wrapper))
    with pytest.raises(NoPrivilege, match="no permission"):
        start_again(where, tmp_path / "s")


def test_no_tun_node(where: str, tmp_path: Path) -> None:
    # In a chroot "/" is no mount point, so unshare cannot make it private; /dev is one there too.
    alone = ("unshare", "--mount", "--propagation", "unchanged", "sh", "-c")
    script = 'mount --make-rprivate /dev && mount -t tmpfs none /dev/net && exec "$0" "$@"'
    hide = (*alone, script)
    sentence = refused(where, "/dev/net/tun", options=("--socket", str(tmp_path / "s")), prefix=hide)
    assert sentence.startswith("3 ")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--socket",),
        ("--socket", "s", "--workers", "0"),
        ("--socket", "s", "--workers", "65"),
        ("--socket", "s", "--workers", "2x"),
        ("--socket", "s", "--counter-cells", "-1"),
        ("--socket", "s", "--nice", "-21"),
        ("--socket", "s", "--nice", "x"),
        ("--socket", "s", "--outer", "sixteen-letters!"),
        ("--socket", "s", "--outer", "a/b"),
        ("--socket", "s", "--outer", "x%d"),
        ("--socket", "s", "--outer", "one", "--inner", "one"),
        ("--socket", "s", "--colour"),
        ("--socket", "s", "extra"),
    ],
)
def test_bad_options(options: tuple[str, ...]) -> None:
    done = subprocess.run(
        [launch.binary(), *options], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ipshare-engine: ") and done.stderr.count("\n") == 1
    assert not Path("s").exists()


def test_watchdog_and_ready_reach_the_service_manager(where: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        command = [str(launch.binary()), "--socket", str(tmp_path / "s"), "--workers", "1"]
        process = inside(where, lambda: subprocess.Popen(command, env=environment))
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"WATCHDOG=1"
        assert manager.recv(100) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        while (message := manager.recv(100)) != b"STOPPING=1":
            assert message == b"WATCHDOG=1"
        assert process.wait(20) == 0
