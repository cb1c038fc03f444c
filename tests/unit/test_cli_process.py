"""The command as a process: what it loads, how it ends when it is interrupted, cut off, or not allowed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.cli import exits
from ipshare.cli.lab import down
from ipshare.cli.output import UsageProblem
from tests.agent_world import site_text
from tests.appliance_site import SITE

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "ipshare"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("IPSHARE", "NO_COLOR"))}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)


def ipshare(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, env=ENVIRONMENT | more, timeout=60, check=False
    )


def test_help_loads_nothing_heavy() -> None:
    """What makes a command start slowly: none of it may be loaded for a question about words."""
    code = (
        "import sys; from ipshare.cli.app import run\n"
        "run(['--help']); run(['chekc']); run(['apply', '--help'])\n"
        "heavy = {'numpy', 'pydantic', 'rich', 'asyncio', 'pyroute2', 'ipshare.core', 'ipshare.lab'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["version"], ["schema"], ["--help"]], ids=" ".join)
def test_a_full_disk_is_no_bug(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *words], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False
        )
    assert done.returncode == exits.FAILURE
    assert done.stderr.startswith("error: no room for what there is to say or keep: No space left on device")
    assert done.stderr.count("\n") == 2, "a sentence and a hint"


@pytest.mark.parametrize(
    "words",
    [
        ["appliance", "key", "/proc/x/update.key"],
        ["appliance", "seed", "--hostname", "c1", "-o", "/proc/seed.img"],
        ["appliance", "seed", "--hostname", "c1", "--output=/proc/seed.img"],
        ["appliance", "backup", "-o", "/proc/box.backup"],
    ],
    ids=" ".join,
)
def test_a_file_that_cannot_be_where_it_was_asked_for_is_no_bug(words: list[str]) -> None:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == exits.FAILURE, done.stderr
    assert done.stderr.startswith("error: cannot use /proc/"), done.stderr
    assert done.stderr.count("\n") == 2, "a sentence and a hint"


@pytest.mark.parametrize("verb", [["restore", __file__], ["factory-reset", "--yes"]], ids=" ".join)
def test_what_changes_a_box_is_refused_elsewhere(verb: list[str]) -> None:
    done = subprocess.run(
        [*COMMAND, "appliance", *verb], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == exits.REFUSED
    assert "not started from an appliance image" in done.stderr


@pytest.mark.skipif(shutil.which("mformat") is None, reason="mtools is not installed")
def test_a_seed_whose_site_file_the_box_would_not_take_is_not_written(tmp_path: Path) -> None:
    """Judged as the box does, with the files that go beside it."""
    site, bulk = tmp_path / "own.toml", tmp_path / "b.csv"
    site.write_text(
        SITE.replace(
            '[[binding]]\nglobal = "198.51.100.0/24"\nto = "A"',
            '[[bindings_file]]\nname = "bulk"\npath = "b.csv"',
        )
    )
    bulk.write_text("global,to\n198.51.100.1,A\n")
    words = ["appliance", "seed", "--hostname", "c1", "--config", str(site), "-o", str(tmp_path / "seed")]

    def said(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words, *more], capture_output=True, text=True, env=ENVIRONMENT, check=False
        )

    done = said()
    assert done.returncode == exits.REFUSED and "b.csv" in done.stderr and "site.toml" in done.stderr, (
        done.stderr
    )
    assert not (tmp_path / "seed").exists()
    done = said("--file", f"b.csv={bulk}")
    assert done.returncode == exits.OK and (tmp_path / "seed").exists(), done.stderr
    assert "nobody can log in" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_silence(closed: str) -> None:
    command = f"{sys.executable} -m ipshare version --json {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stderr) == (exits.OK, "")
    assert bool(done.stdout) == (not closed.startswith(">"))


def test_an_ending_reader_is_no_error() -> None:
    with subprocess.Popen(
        [*COMMAND, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as p:
        assert p.stdout is not None and p.stderr is not None
        p.stdout.close()
        assert p.stderr.read() == b""
        assert p.wait(60) == exits.BROKEN_PIPE


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A test that fails leaves no process behind."""
    try:
        yield
    finally:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_is_quiet(number: signal.Signals) -> None:
    """Whether or not who started the tests ignores them, as a shell's background jobs and nohup do."""
    words = ["probe", "egress", "--listen", "--address", "127.0.0.1", "--port", "47901"]
    command = ["env", "--default-signal=INT,HUP", *COMMAND, *words]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as p,
        ended(p),
    ):
        assert p.stdout is not None and p.stderr is not None
        assert b"listening" in p.stdout.readline()
        p.send_signal(number)
        assert p.wait(60) == exits.INTERRUPTED
        assert p.stderr.read() == b""


def test_errors_are_json_where_json_was_wanted(tmp_path: Path) -> None:
    done = ipshare("check", str(tmp_path / "none.toml"), "--json")
    assert done.returncode == exits.USAGE
    assert json.loads(done.stdout)["ok"] is False
    done = ipshare("show", "-c", str(tmp_path / "none.toml"), "--json")
    assert done.returncode == exits.USAGE and done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert set(error) == {"message", "hint", "exit_code", "problems"}
    assert error["exit_code"] == exits.USAGE


def test_no_colour_in_a_pipe() -> None:
    assert "\x1b" not in ipshare("check", "/nowhere.toml").stderr


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_colour_on_a_terminal_unless_refused(no_colour: str) -> None:
    script = shutil.which("script")
    if script is None:
        pytest.skip("no script(1) to make a terminal")
    line = f"{' '.join(COMMAND)} check /nowhere.toml"
    done = subprocess.run(
        [script, "-qec", line, "/dev/null"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {"NO_COLOR": no_colour, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    if "pseudo-terminal" in done.stderr:
        pytest.skip(f"no terminal to be had here: {done.stderr.strip()}")
    assert ("\x1b[31merror" in done.stdout) == (not no_colour)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    assert "_IPSHARE_COMPLETE" in ipshare("completion", shell).stdout


def test_completion_finds_verbs() -> None:
    done = ipshare(_IPSHARE_COMPLETE="bash_complete", COMP_WORDS="ipshare che", COMP_CWORD="1")
    assert done.stdout.strip() == "plain,check"


def entered() -> list[str]:
    """A command that runs another one where everybody gets to this checkout and to this Python: in a view of
    the file system without what else there is in a directory that only root may enter."""
    paths = (ROOT, Path(sys.base_prefix))
    parents = [parent for path in paths for parent in reversed(path.parents)]
    shut = next((parent for parent in parents if not parent.stat().st_mode & 0o001), None)
    if shut is None:
        return []
    kept = {f"/mnt/{n}": shlex.quote(str(path)) for n, path in enumerate(paths) if path.is_relative_to(shut)}
    lines = ["umask 022", "mount -t tmpfs tmpfs /mnt"]
    lines += [f"mkdir {at}; mount --bind {path} {at}" for at, path in kept.items()]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(shut))}"]
    lines += [f"mkdir -p {path}; mount --move {at} {path}" for at, path in kept.items()]
    return ["unshare", "--mount", "sh", "-ec", "; ".join([*lines, 'exec "$@"']), "sh"]


def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to give privileges away")
    drop = [*entered(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    tried = subprocess.run(
        [*drop, *COMMAND, "--help"], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    if tried.returncode:
        pytest.skip(f"another user cannot run this checkout: {tried.stderr.strip()}")
    return subprocess.run(
        [*drop, *COMMAND, *words], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False
    )


def node_of_root(directory: Path) -> str:
    """A configuration that nobody may read, of a node that only root may touch."""
    for parent in (directory, *directory.parents):
        if "pytest" in str(parent):
            parent.chmod(0o755)
    (directory / "site.toml").write_text(site_text(directory))
    return str(directory / "site.toml")


@pytest.mark.parametrize("verb", [["agent"], ["apply"], ["show", "-c"]])
def test_without_privileges_one_sentence_and_nothing_left(tmp_path: Path, verb: list[str]) -> None:
    file = node_of_root(tmp_path)
    (tmp_path / "run").mkdir(mode=0o700)
    before = sorted(tmp_path.rglob("*"))
    done = as_nobody(*verb, file)
    assert done.returncode == exits.NO_PRIVILEGE, done.stderr
    assert done.stderr.startswith("error: ") and "hint: run as root" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_socket_that_one_may_not_open_is_not_an_absent_engine(tmp_path: Path) -> None:
    file = node_of_root(tmp_path)
    (tmp_path / "run").mkdir(mode=0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as engine:
        engine.bind(str(tmp_path / "run" / "engine.sock"))
        engine.listen()
        (tmp_path / "run" / "engine.sock").chmod(0o600)
        assert as_nobody("show", "-c", file).returncode == exits.NO_PRIVILEGE


def test_a_group_without_verb_shows_its_help_as_a_mistake() -> None:
    done = ipshare("lab")
    assert (done.returncode, done.stdout) == (exits.USAGE, "")
    assert done.stderr.startswith("Usage: ipshare lab")


@pytest.mark.skipif(Path("/etc/ipshare/site.toml").exists(), reason="this machine has a configuration")
@pytest.mark.parametrize("verb", ["show", "check", "agent", "down"])
def test_no_configuration_named_and_none_there(verb: str) -> None:
    done = ipshare(verb)
    assert done.returncode == exits.USAGE
    assert "no configuration was named" in done.stderr and "-c FILE" in done.stderr


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_the_demo_looks_where_its_files_go_before_it_works(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    done = ipshare("demo", "--out", str(tmp_path / name))
    assert (done.returncode, done.stdout) == (exits.REFUSED, "")
    assert f"cannot write to {tmp_path / name}" in done.stderr and "--out" in done.stderr


@pytest.mark.parametrize("verb", [["down", "x"], ["exec", "c1", "true"]])
def test_another_ones_lab_is_not_touched_without_root(tmp_path: Path, verb: list[str]) -> None:
    script = (
        "import sys; from pathlib import Path; from ipshare.lab import netns, state, userns\n"
        "here = Path(sys.argv[1]); state.STATE_DIR = netns.NETNS_DIR = here\n"
        "userns.is_root = lambda: False\n"
        "from ipshare.cli.app import run; sys.exit(run(['lab', *sys.argv[2:]]))"
    )
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "state.json").write_text('{"names": ["x-c1"], "owner": 1, "started": ""}')
    (tmp_path / "x-c1").touch()
    words = [sys.executable, "-c", script, str(tmp_path), *verb]
    done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == exits.NO_PRIVILEGE, done.stderr
    assert (tmp_path / "x-c1").exists() and (tmp_path / "x" / "state.json").exists()


@pytest.mark.parametrize(
    ("words", "said"), [((), "--all for every lab of this machine: x, y"), (("x", "--all"), "name one lab")]
)
def test_labs_that_nobody_named_are_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr("ipshare.lab.state.STATE_DIR", tmp_path)
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text('{"names": [], "owner": 1, "started": ""}')
    with pytest.raises(UsageProblem) as refused:
        down.main(list(words), standalone_mode=False)
    assert said in refused.value.hint
    assert (tmp_path / "x" / "state.json").exists() and (tmp_path / "y" / "state.json").exists()
