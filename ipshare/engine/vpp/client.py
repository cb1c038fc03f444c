"""client: VPP's binary API: one connection, one message at a time, and errors that say what happened.

The only module that imports vpp_papi. What a message means is its callers' business (engine, ports). A
connection that was lost is made anew by the next call; if another VPP answers then (another boot id), that
call raises ``EngineRestarted`` once, because whatever was loaded is gone. Layouts come from the .api.json
files of the VPP that is installed here; their CRCs are compared with those of the VPP that runs.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket as sockets
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ipshare import __version__
from ipshare.engine.failures import EngineGone, EngineRestarted, EngineSilent
from ipshare.engine.vpp.find import api_files
from ipshare.engine.vpp.retval import Retval, text
from ipshare.errors import EngineError

DEFAULT_TIMEOUT_S = 10.0
FOR_EVER_S = 2e6
"""23 days: poll(2) counts milliseconds in 31 bits, and vpp-papi waits by it."""
NAME = "ipshare"
SHOWN = 3


class ApiRefused(EngineError):
    """VPP answered a message with an error. ``retval`` is its number (``Retval``), ``reply`` all it said."""

    def __init__(self, message: str, *, retval: int, reply: Any = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retval = retval
        self.reply = reply


class Client:
    """A client of the VPP whose API socket is ``socket``. Blocking, thread-safe; a context manager."""

    def __init__(
        self,
        socket: Path | str,
        *,
        api_dirs: Sequence[Path] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        plugin: bool = True,
    ) -> None:
        """Connects at the first call. ``api_dirs``: where .api.json files are, None: as ``find`` finds them.
        ``plugin`` False: any VPP will do, with our plugin or without."""
        self.path = Path(socket)
        self.timeout_s = timeout_s
        self.boot_id: str | None = None
        self._api_dirs = api_dirs
        self._plugin = plugin
        self._papi: Any = None
        self._connected = False
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; VPP goes on as it is."""
        with self._lock:
            self._drop()

    def call(self, name: str, *, timeout_s: float | None = None, **fields: Any) -> Any:
        """Sends message ``name`` and returns its reply (fields as attributes).

        Raises ``ApiRefused`` (retval < 0), ``EngineGone``, ``EngineRestarted``, ``EngineSilent``; after the
        last three the outcome is unknown.
        """
        with self._lock:
            reply = self._exchange(name, timeout_s or self.timeout_s, fields)
        retval = getattr(reply, "retval", 0)
        if retval < 0:
            raise ApiRefused(f"VPP refused {name}: {text(retval)}", retval=retval, reply=reply)
        return reply

    def dump(self, name: str, *, timeout_s: float | None = None, **fields: Any) -> list[Any]:
        """All details that ``name`` (a _dump, or a _get with cursor) is answered with."""
        limit = timeout_s or self.timeout_s
        with self._lock:
            answer = self._exchange(name, limit, fields)
            if isinstance(answer, list):
                return answer
            reply, found = answer
            while reply.retval == Retval.EAGAIN:
                reply, more = self._exchange(name, limit, fields | {"cursor": reply.cursor})
                found += more
        if reply.retval < 0:
            raise ApiRefused(f"VPP refused {name}: {text(reply.retval)}", retval=reply.retval, reply=reply)
        return list(found)

    def cli(self, command: str) -> str:
        """What VPP's command line prints. For people and tests: nothing here depends on its wording.

        Raises ``ApiRefused`` with what it prints about a command that fails.
        """
        try:
            reply = self.call("cli_inband", cmd=command)
        except ApiRefused as error:
            said = " ".join(error.reply.reply.split())
            raise ApiRefused(
                f"VPP refused '{command}': {said}", retval=error.retval, reply=error.reply
            ) from None
        return str(reply.reply)

    def has(self, name: str) -> bool:
        """Whether the VPP that runs knows message ``name`` (its plugin is loaded)."""
        with self._lock:
            self._connect()
            return hasattr(self._papi.api, name)

    # ---- connection ----------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the connection that was made has not been lost, as far as calls have found out."""
        return self._connected

    def connect(self) -> None:
        """Now, not at the first call. Raises what that would."""
        with self._lock:
            self._connect()

    def interrupt(self) -> None:
        """From any thread: who waits in ``call`` gets ``EngineGone``."""
        peer = self._papi.transport.socket if self._papi is not None else None
        if peer is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                peer.shutdown(sockets.SHUT_RDWR)

    def _exchange(self, name: str, timeout_s: float, fields: dict[str, Any]) -> Any:
        self._connect()
        return self._send(name, timeout_s, fields)

    def _send(self, name: str, timeout_s: float, fields: dict[str, Any]) -> Any:
        from vpp_papi import VPPIOError

        function = getattr(self._papi.api, name, None)
        if function is None:
            raise EngineError(
                f"this VPP knows no message {name}", hint="is the plugin that it is of enabled?"
            )
        try:
            return function(_timeout=timeout_s, **fields)
        except (VPPIOError, OSError) as error:
            gone = self._hung_up()
            self._drop()
            if gone:
                raise EngineGone(f"VPP went away during {name}", hint="see its log") from error
            raise EngineSilent(
                f"VPP did not answer {name} within {timeout_s:g} s", hint="is it stopped or overloaded?"
            ) from error
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, struct.error) as error:
            raise EngineError(f"{name} cannot be sent as asked: {error}") from error  # nothing was sent
        except BaseException:  # ^C: half a message may have been sent, and would swallow the next one
            self._drop()
            raise

    def _connect(self) -> None:
        if self._connected:
            return
        papi = self._papi = self._papi or self._load()
        _probe(self.path, self.timeout_s)
        papi.transport.read_timeout = self.timeout_s
        try:
            papi.connect_sync(NAME)
        except Exception as error:  # whatever a peer that is no VPP makes of the library
            self._drop()
            if isinstance(error, TimeoutError):
                raise EngineSilent("VPP does not answer", hint="is it stopped or overloaded?") from error
            raise EngineGone(f"whoever listens on {self.path} is no VPP: {error}") from error
        self._connected = True
        try:
            self._check_crcs()
            boot_id = self._identity()
        except BaseException:
            self._drop()
            raise
        known, self.boot_id = self.boot_id, boot_id
        if known not in (None, boot_id):
            raise EngineRestarted(
                "VPP was restarted: it is another process now", hint="load its tables again"
            )

    def _load(self) -> Any:
        try:
            from vpp_papi import VPPApiClient
        except ImportError as error:
            raise EngineError(
                "the Python package vpp-papi is not installed", hint="pip install 'ipshare[vpp]'"
            ) from error
        files = [str(file) for file in api_files(self._api_dirs)]
        try:
            return VPPApiClient(apifiles=files, server_address=str(self.path), async_thread=False)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            raise EngineError(f"VPP's .api.json files cannot be read: {error}", hint=files[0]) from error

    def _check_crcs(self) -> None:
        """Raises ``EngineError`` naming the messages that VPP and the files define in two ways."""
        running = dict(entry.rsplit("_", 1) for entry in self._papi.transport.message_table)
        wrong = [
            f"{name} (VPP has {running[name]}, the files have {message.crc[2:]})"
            for name, message in self._papi.messages.items()
            if name in running and running[name] != message.crc[2:]
        ]
        if not wrong:
            return
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise EngineError(
            f"{self._version()} and the .api.json files differ in {', '.join(sorted(wrong)[:SHOWN])}{more}",
            hint="restart VPP after an upgrade; IPSHARE_VPP names the VPP whose files are read",
        )

    def _version(self) -> str:
        with contextlib.suppress(EngineError):
            return f"VPP {self._send('show_version', self.timeout_s, {}).version}"
        return "the VPP that runs"

    def _identity(self) -> str:
        """The boot id. Raises ``EngineError`` where our plugin is missing, or of another version."""
        if not hasattr(self._papi.api, "ipshare_hello"):
            if self._plugin:
                raise EngineError(
                    f"{self._version()} runs without the ipshare plugin",
                    hint="install vpp-plugin-ipshare and restart VPP; startup.conf must not disable it",
                )
            return f"pid {self._send('control_ping', self.timeout_s, {}).vpe_pid}"
        hello = self._send("ipshare_hello", self.timeout_s, {})
        if hello.version != __version__:
            raise EngineError(
                f"VPP runs version {hello.version} of the ipshare plugin, this is ipshare {__version__}",
                hint="install the same version of both, and restart VPP",
            )
        return str(hello.boot_id.hex())

    def _hung_up(self) -> bool:
        """Whether VPP closed the connection (False: it is silent)."""
        peer = self._papi.transport.socket
        if peer is None:
            return True
        try:
            readable, _, _ = select.select([peer], [], [], 0)
            return bool(readable) and not peer.recv(1, sockets.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _drop(self) -> None:
        """Ends the connection without waiting for VPP: one that is silent must not hold us up."""
        self._connected = False
        transport = self._papi.transport if self._papi is not None else None
        if transport is None or transport.socket is None:
            return
        with contextlib.suppress(OSError):
            transport.socket.shutdown(sockets.SHUT_RDWR)
        with contextlib.suppress(OSError, AttributeError):
            self._papi.disconnect()
        _forget_unread(transport)


def _forget_unread(transport: Any) -> None:
    """vpp-papi hands replies over by queues of multiprocessing, whose threads wait for a reader: at the next
    connection, and at the end of the process. What was not read when a connection ended is nobody's."""
    for unread in (transport.sque, transport.q):
        unread.cancel_join_thread()
        with contextlib.suppress(queue.Empty):
            while True:
                unread.get(timeout=0.01)


def _probe(path: Path, timeout_s: float) -> None:
    """Raises ``EngineGone`` if nobody listens on ``path``: said in words, before the library tries."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(str(path))
        except OSError as error:
            refused = isinstance(error, PermissionError)
            hint = "run as root, or as a member of VPP's group" if refused else "start VPP first"
            why = error.strerror or str(error)
            raise EngineGone(f"no VPP answers on {path}: {why}", hint=hint) from error
