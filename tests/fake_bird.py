"""A BIRD without routing: takes its options, listens at its control socket, notes what it was told to
announce.

A line of the journal (beside bird.conf) for each start and `configure`: the word, and how many routes stand
in the file. A file with the word BAD is refused, as BIRD refuses one with a mistake. `program` makes it a
command.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

VERSION = "2.0.12"


def program(directory: Path, version: str = VERSION) -> Path:
    """A command that runs it."""
    file = directory / f"bird-{version}"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} --version-is {version} "$@"\n')
    file.chmod(0o755)
    return file


def journal(run: Path) -> list[str]:
    """What was told so far."""
    file = run / "journal"
    return file.read_text().splitlines() if file.exists() else []


def read(conf: Path, word: str) -> bool:
    text = conf.read_text()
    if "BAD" in text:
        return False
    routes = sum(1 for line in text.splitlines() if line.startswith("  route "))
    with (conf.parent / "journal").open("a") as file:
        file.write(f"{word} {routes}\n")
    return True


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("-c", "-s", "-P", "--version-is"):
        parser.add_argument(name, required=True)
    parser.add_argument("-f", action="store_true")
    a = parser.parse_args()
    conf = Path(a.c)
    if not read(conf, "start"):
        sys.exit(f"bird: {conf}:1:1 syntax error")
    Path(a.P).write_text(f"{os.getpid()}\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(a.s)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                serve(connection, conf, a.version_is)


def serve(connection: socket.socket, conf: Path, version: str) -> None:
    connection.sendall(f"0001 BIRD {version} ready.\n".encode())
    with connection.makefile("r") as lines:
        for line in lines:
            if line == "configure\n":
                good = read(conf, "configure")
                reply = "0002-Reading\n0003 Reconfigured\n" if good else "8002 1:1 syntax error\n"
            elif line == "down\n":
                connection.sendall(b"0007 Shutdown requested\n")
                sys.exit()
            else:
                reply = "0000 \n"
            connection.sendall(reply.encode())


if __name__ == "__main__":
    main()
