"""The lab's side of the relay's control socket (lab/relay.py has the other)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from ipshare.errors import IpshareError


def ask(control: Path, link: str, **settings: Any) -> dict[str, Any]:
    """Changes settings of a link (none: just asks). Returns settings, and counts per
    direction (a to b, b to a). Raises IpshareError where the relay refuses or is gone."""
    request = {"link": link, "set": settings} if settings else {"link": link}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            connection.connect(str(control))
            with connection.makefile("rw") as file:
                file.write(json.dumps(request) + "\n")
                file.flush()
                answer: dict[str, Any] = json.loads(file.readline())
    except OSError as error:
        raise IpshareError(
            f"the relay does not answer: {error}", hint="has the link an impairment?"
        ) from error
    if "error" in answer:
        raise IpshareError(f"the relay refused: {answer['error']}", hint="see ipshare.lab.impair.Impairment")
    return answer
