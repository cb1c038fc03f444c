"""The builder of images with what goes wrong around it: an interrupt, another build in the same place, a full
disk, packages that are none or of another distribution, a machine that is of two."""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from ipshare.appliance import build, packages, tools
from ipshare.errors import IpshareError, Refused

BOOKWORM, TRIXIE = packages.SUITES["bookworm"], packages.SUITES["trixie"]


def order(place: Path, **of: object) -> build.Order:
    wanted: dict[str, object] = {"version": "1.0", "epoch": 1_700_000_000, "suite": BOOKWORM, **of}
    return build.Order(place / "output", place / "work", **wanted)  # type: ignore[arg-type]


def program(place: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name which the builder finds before any other."""
    (place / name).write_text(f"#!/bin/sh\n{script}\n")
    (place / name).chmod(0o755)
    monkeypatch.setattr(tools, "PLACES", f"{place}:{tools.PLACES}")


def a_deb(place: Path, name: str, depends: str) -> Path:
    control = place / "of" / name / "DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: m <m@example.net>\n"
        f"Depends: {depends}\nDescription: d\n"
    )
    (control.parent.parent / "data").write_bytes(bytes(range(256)) * 100)
    made = place / f"{name}.deb"
    tools.run(["dpkg-deb", "--build", str(control.parent.parent), str(made)])
    return made


def test_an_interrupt_ends_a_program_with_its_children_and_lets_it_clean_up(tmp_path: Path) -> None:
    lock, made, late = tmp_path / "lock", tmp_path / "made", tmp_path / "late"
    script = f"""
        trap 'rm {made}; exit 1' TERM
        exec 9>{lock}; flock 9
        touch {made}
        (sleep 30; touch {late}) &
        read go; kill -INT $PPID; wait
    """
    with pytest.raises(KeyboardInterrupt):
        tools.run(["sh", "-c", script], text="go\n")
    assert not made.exists(), "it was waited for"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the child is gone
    assert not late.exists(), "it was told to end, too"


def test_programs_run_the_same_whoever_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    before = os.umask(0o077)
    try:
        said = tools.run(["sh", "-c", 'umask; date -d @0 +%H; echo "$LC_ALL"']).split()
    finally:
        os.umask(before)
    assert said == ["0022", "00", "C"]


def test_what_a_program_said_is_told_without_its_progress() -> None:
    with pytest.raises(IpshareError) as caught:
        tools.run(["sh", "-c", "echo I: fetching >&2; echo E: no such suite >&2; exit 25"])
    assert caught.value.message == "sh failed (25): E: no such suite"


def test_two_builds_never_share_a_directory(tmp_path: Path) -> None:
    work, output, elsewhere = (tmp_path / name for name in ("work", "output", "elsewhere"))
    for where in (work, output, elsewhere):
        where.mkdir()
    with ExitStack() as first:
        first.enter_context(tools.alone({work: "--work", output: "--output"}))
        for places in ({work: "--work", elsewhere: "--output"}, {elsewhere: "--work", output: "--output"}):
            with pytest.raises(Refused, match="another build"), tools.alone(places):
                pass
        with tools.alone({elsewhere: "--work"}):
            pass  # what was refused holds nothing
    with tools.alone({work: "--work", output: "--output"}):
        pass


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(Refused, match="no directory"):
            tools.place(where, "--work")
    tools.place(tmp_path / "a/b", "--work")
    assert (tmp_path / "a/b").is_dir()


@pytest.mark.parametrize(
    ("of", "word"),
    [
        ({"version": "../1"}, "file's name"),
        ({"version": "1 0"}, "file's name"),
        ({"epoch": 0}, "no time"),
        ({"epoch": 1 << 32}, "no time"),
        ({"arguments": 'quiet "'}, "GRUB"),
        ({"arguments": "quiet; halt"}, "GRUB"),
        ({"arguments": "quiet\nhalt"}, "GRUB"),
        ({"arguments": "isolcpus=1-3 console=ttyS1,115200n8", "epoch": 0}, "no time"),
    ],
)
def test_an_order_that_cannot_be_made_is_refused_at_once(
    tmp_path: Path, of: dict[str, object], word: str
) -> None:
    with pytest.raises(Refused, match=word):
        build.judge(order(tmp_path, **of))


def test_files_that_are_no_whole_package_are_refused(tmp_path: Path) -> None:
    deb = a_deb(tmp_path, "vpp", "libc6 (>= 2.36)")
    assert build.control(deb)["Depends"] == "libc6 (>= 2.36)"
    deb.write_bytes(deb.read_bytes()[:-100])
    (tmp_path / "text.deb").write_text("hello")
    (tmp_path / "directory.deb").mkdir()
    for name in ("vpp", "text", "directory"):
        with pytest.raises(Refused, match=f"{name}.deb is no Debian package"):
            build.control(tmp_path / f"{name}.deb")


def test_packages_of_an_earlier_distribution_are_refused_too() -> None:
    control = {"Architecture": "amd64", "Depends": "libc6 (>= 2.36), libssl3 (>= 3.0.0)"}
    assert packages.foreign("vpp.deb", control, BOOKWORM) == []
    against = packages.foreign("vpp.deb", control, TRIXIE)
    assert against == [
        "vpp.deb needs libssl3, which is libssl3t64 in trixie: it is made for an earlier distribution"
    ]


def test_a_machine_with_the_python_of_one_and_the_libc_of_another_is_refused(tmp_path: Path) -> None:
    late, early = tmp_path / "late.so", tmp_path / "early.so"
    late.write_bytes(b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.38\0GLIBC_PRIVATE\0")
    early.write_bytes(b"\x7fELF\0GLIBC_2.36\0")
    with pytest.raises(Refused, match=r"late.so \(glibc 2.38\); bookworm has 2.36"):
        build.runs([early, late], BOOKWORM)
    build.runs([early], BOOKWORM)
    build.runs([early, late], TRIXIE)


def test_wheels_of_another_distribution_are_not_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(tools, "run", lambda command, **of: asked.append(" ".join(command)) or "")
    monkeypatch.setattr(build.shutil, "copytree", lambda *of, **more: None)
    wheels = tmp_path / "work/python"
    for suite, fresh in ((BOOKWORM, True), (BOOKWORM, False), (TRIXIE, True)):
        wheels.mkdir(parents=True, exist_ok=True)
        (wheels / "kept.so").touch()
        asked.clear()
        build._staged(order(tmp_path, suite=suite))
        assert any("pip install" in words for words in asked) is fresh
        assert (wheels / "kept.so").exists() is not fresh


def test_a_directory_with_any_name_goes_through_the_hooks(tmp_path: Path) -> None:
    command = packages.mmdebstrap(BOOKWORM, "t", "/it's/hooks", debs="/my debs")
    hooks = [word.partition("=")[2] for word in command if "-hook=" in word]
    assert sum("'/my debs'/*.deb" in hook for hook in hooks) == 2, "asked early, and installed"
    for hook in hooks:
        subprocess.run(["sh", "-n", "-c", hook], check=True)


@pytest.mark.parametrize(("said", "hint"), [("Failed to fetch x", "--mirror"), ("No space left", "")])
def test_a_root_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, hint: str
) -> None:
    (tmp_path / "work").mkdir()
    script = (
        f'for word; do case "$word" in *.part) echo half >"$word";; esac; done; echo E: {said} >&2; exit 25'
    )
    program(tmp_path, "mmdebstrap", script, monkeypatch)
    with pytest.raises(IpshareError, match=said) as caught:
        build._base(order(tmp_path), {})
    assert caught.value.hint.startswith(hint) and bool(caught.value.hint) is bool(hint)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_kept_root_that_is_damaged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    program(tmp_path, "mksquashfs", "cat >/dev/null", monkeypatch)
    base = tmp_path / "work/debian-0.tar"
    base.write_bytes(b"no tar" * 1000)
    (tmp_path / "staged").mkdir()
    with pytest.raises(IpshareError, match=r"debian-0.tar is damaged"):
        build._root(order(tmp_path), base, tmp_path / "staged", tmp_path)


def test_the_c_core_does_not_say_where_it_was_built() -> None:
    for built in [build.TOP / "ipshare/_bin/ipshare-engine", *build.TOP.glob("ipshare/core/_native*.so")]:
        content = built.read_bytes()
        assert f"{build.TOP}\0".encode() not in content and f"{build.TOP}/".encode() not in content, built


def test_a_build_makes_files_for_all_and_leaves_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "output").mkdir()
    monkeypatch.setattr(build, "judge", lambda wanted: None)
    made = tmp_path / "made"
    monkeypatch.setattr(build, "_built", lambda wanted, say: {"mode": made.write_text("slot")})
    before = os.umask(0o077)
    try:
        build.build(order(tmp_path), print)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o644
