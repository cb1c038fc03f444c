"""witness: the verbs that run a pair's witness: on a third machine, or beside each node on top of etcd."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from ipshare.cli import output
from ipshare.cli.node import log_to_stderr
from ipshare.cli.options import FILE, Duration, file_option, named_file


@click.group("witness")
def witness_() -> None:
    """A third voter for a pair: at most one node forwards, whatever is cut between the two."""


@witness_.command("node")
@click.option("--listen", required=True, metavar="ADDRESS:PORT", help="UDP address that both nodes ask.")
@click.option("--key-file", required=True, type=FILE, help="Key of `ipshare pair key`, at the nodes too.")
@click.option("--state", required=True, type=FILE, help="File for what was promised; survives a reboot.")
@click.option(
    "--longest",
    "longest_s",
    type=Duration(),
    default="10s",
    show_default=True,
    help="Longest grant (`ttl`); without its file it waits so long before it grants anything.",
)
@click.option("--verbose", is_flag=True, help="Log more.")
def node(listen: str, key_file: Path, state: Path, longest_s: float, verbose: bool) -> None:
    """Run a witness here, on a machine that fails with neither node. Ends with SIGTERM."""
    from ipshare.config.units import Invalid, collector
    from ipshare.pair.witness_node import NodeJudge

    try:
        where = collector(listen)
    except Invalid as error:
        raise output.UsageProblem(error.message, error.hint) from None
    log_to_stderr(verbose, False)
    _run(where, key_file, NodeJudge(state.absolute(), longest_s=longest_s))


@witness_.command("etcd")
@file_option
@click.option("--verbose", is_flag=True, help="Log more.")
def etcd(file: Path | None, verbose: bool) -> None:
    """Answer this node's questions to its witness out of etcd, as [pair.witness] says. Ends with SIGTERM."""
    import ssl

    from ipshare.config import load
    from ipshare.errors import Refused
    from ipshare.pair.witness_etcd import EtcdJudge

    witness = pair.witness if (pair := load(named_file(file)).pair) is not None else None
    if pair is None or witness is None or not witness.endpoints:
        raise Refused(
            "this node has no witness in etcd", hint='write kind = "etcd" and endpoints in [pair.witness]'
        )
    tls = None
    if any(endpoint.startswith("https:") for endpoint in witness.endpoints):
        tls = ssl.create_default_context(cafile=str(witness.ca_file) if witness.ca_file else None)
        if witness.cert_file is not None:
            tls.load_cert_chain(witness.cert_file, witness.cert_key_file)
    log_to_stderr(verbose, False)
    judge = EtcdJudge(witness.endpoints, witness.prefix, timeout_s=witness.ttl_s / 4, tls=tls)
    _run((witness.address, witness.port), witness.key_file, judge)


def _run(where: object, key_file: Path, judge: object) -> None:
    from ipshare.agent.notify import notify
    from ipshare.agent.pair import read_key
    from ipshare.pair.witness import Witness

    ended = threading.Event()
    witness = Witness(where, read_key(key_file), judge)  # type: ignore[arg-type]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    notify("READY=1", f"STATUS=listens on port {witness.port}")
    witness.run(ended.is_set)
