"""Leases by DHCP: messages (RFC 2131, 2132, 3396), the client's states, and the desk that has them all."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from ipshare.dhcp.client import INFINITE, Client, State
from ipshare.dhcp.message import Malformed, Message, Option, Type, decode, encode
from tests.dhcp_world import GIADDR, LEASE_S, SERVER, Server, World, mac, started, workload

ADDRESS = st.integers(0, 2**32 - 1).map(IPv4Address)
NUMBERS = st.integers(1, 254).filter(lambda number: number not in (Option.TYPE, 52))
MESSAGES = st.builds(
    Message,
    st.sampled_from(Type),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=6, max_size=6),
    st.booleans(),
    st.integers(0, 65535),
    ADDRESS,
    ADDRESS,
    ADDRESS,
    st.dictionaries(NUMBERS, st.binary(max_size=600), max_size=5),
)


# ---- messages --------------------------------------------------------------------


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message
    assert len(encode(message)) >= 300


def test_scapy_reads_the_same() -> None:
    options = {Option.CLIENT_ID: b"\x01" + mac(7), Option.REQUESTED: SERVER.packed}
    bootp = BOOTP(encode(Message(Type.REQUEST, 0x12345678, mac(7), secs=9, giaddr=GIADDR, options=options)))
    assert (bootp.op, bootp.htype, bootp.hlen, bootp.xid, bootp.secs) == (1, 1, 6, 0x12345678, 9)
    assert (bootp.giaddr, bootp.ciaddr, bootp.chaddr[:6]) == (str(GIADDR), "0.0.0.0", mac(7))
    found = {option[0]: option[1] for option in bootp[DHCP].options if isinstance(option, tuple)}
    assert (found["message-type"], found["requested_addr"]) == (3, str(SERVER))
    assert found["client_id"] == b"\x01" + mac(7)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    try:
        decode(data)
    except Malformed as why:
        assert str(why)


def test_cut_and_flipped_messages_raise_nothing_else() -> None:
    options = {Option.SERVER: SERVER.packed, Option.LEASE_TIME: (600).to_bytes(4, "big")}
    whole = encode(Message(Type.ACK, 1, mac(1), True, yiaddr=SERVER, options=options))
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes((whole[at] ^ 0xFF,)) + whole[at + 1 :]):
            try:
                decode(data)
            except Malformed:
                continue


def test_options_in_file_and_sname_are_read() -> None:
    """RFC 2131 4.1: option overload."""
    data = bytearray(encode(Message(Type.ACK, 1, mac(1), True)))
    data[240:250] = bytes((53, 1, 5, 52, 1, 3, 255, 0, 0, 0))
    data[108:115] = bytes((54, 4, *SERVER.packed, 255))
    data[44:51] = bytes((51, 4, 0, 0, 2, 88, 255))
    message = decode(bytes(data))
    assert (message.address(Option.SERVER), message.seconds(Option.LEASE_TIME)) == (SERVER, 600)


# ---- one client ------------------------------------------------------------------


def test_a_workload_gets_an_address() -> None:
    """DISCOVER, OFFER, REQUEST, ACK."""
    server = Server()
    world = started(server, 1)
    assert [m.type for m in server.heard] == [Type.DISCOVER, Type.REQUEST]
    assert server.heard[1].options[Option.SERVER] == SERVER.packed
    assert world.addresses() == {"w1": "198.51.100.100"} and world.trouble("w1") == ""


def test_it_is_renewed_at_half_its_time_by_who_leased_it() -> None:
    server = Server()
    world = started(server, 1)
    world.run(LEASE_S / 2 - 1)
    assert len(server.heard) == 2
    world.run(2)
    renewal = server.heard[2]
    assert (renewal.type, str(renewal.ciaddr)) == (Type.REQUEST, "198.51.100.100")
    assert not {Option.REQUESTED, Option.SERVER} & set(renewal.options), "RFC 2131 table 5"
    world.run(20 * LEASE_S)
    assert world.addresses() == {"w1": "198.51.100.100"} and len(server.heard) > 20


def test_the_renewal_goes_to_the_server_and_the_rebinding_to_everyone() -> None:
    server = Server()
    world = started(server, 1)
    (to,) = {o.send.to for o in world.desk.tick(world.now + LEASE_S * 0.6)}
    assert to == SERVER
    (to,) = {o.send.to for o in world.desk.tick(world.now + LEASE_S * 0.9)}
    assert to is None and world.desk.states()["w1"][0] is State.REBINDING


def test_a_lease_that_nobody_extends_ends_and_is_asked_for_again() -> None:
    server = Server()
    world = started(server, 1)
    server.deaf = True
    world.run(LEASE_S * 0.95)
    assert world.addresses() and "extend" in world.trouble("w1")
    world.run(LEASE_S * 0.1)
    assert world.addresses() == {}
    world.run(300)
    assert world.trouble("w1")
    server.deaf = False
    world.run(70)
    assert world.addresses() == {"w1": "198.51.100.100"} and world.trouble("w1") == ""


def test_silence_is_answered_with_patience() -> None:
    """RFC 2131 4.1: 4, 8, 16, 32, 64 seconds, each with one at random."""
    server = Server()
    server.deaf = True
    world = World(server)
    world.desk.want([workload(1)], world.now)
    world.desk.lead()
    times = []
    for _ in range(7):
        world.now = max(world.now, world.desk.wake_s())
        times.append(world.now)
        world.carry(world.desk.tick(world.now))
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert all(abs(g - w) <= 1 for g, w in zip(gaps, (4, 8, 16, 32, 64, 64), strict=True))
    assert world.trouble("w1") == "no DHCP server answers"


def test_a_server_that_offers_and_does_not_grant_is_left() -> None:
    client = Client(mac(1), GIADDR)
    (discover,) = client.tick(0.0)
    options = {Option.SERVER: SERVER.packed}
    offer = Message(Type.OFFER, discover.message.xid, mac(1), True, yiaddr=SERVER, options=options)
    client.heard(offer, 0.1)
    for _ in range(3):
        (request,) = client.tick(client.wake_s)
        assert request.message.type is Type.REQUEST
    (again,) = client.tick(client.wake_s)
    assert again.message.type is Type.DISCOVER


def ack(
    client: Client, xid: int, seconds: int = 600, address: str = "198.51.100.9", **fields: bytes
) -> Message:
    assert client.state is State.REBOOTING
    options = {Option.SERVER: SERVER.packed, Option.LEASE_TIME: seconds.to_bytes(4, "big")}
    options |= {Option[name]: value for name, value in fields.items()}
    return Message(Type.ACK, xid, mac(1), True, yiaddr=IPv4Address(address), options=options)


def rebooting() -> tuple[Client, int]:
    client = Client(mac(1), GIADDR, remembered=IPv4Address("198.51.100.9"))
    (sent,) = client.tick(0.0)
    assert sent.message.type is Type.REQUEST and Option.SERVER not in sent.message.options
    assert sent.message.options[Option.REQUESTED] == IPv4Address("198.51.100.9").packed
    return client, sent.message.xid


@pytest.mark.parametrize(
    ("seconds", "address"), [(10, "198.51.100.9"), (600, "127.0.0.1"), (600, "224.0.0.9"), (600, "0.0.0.0")]
)
def test_a_lease_that_is_none_is_refused(seconds: int, address: str) -> None:
    client, xid = rebooting()
    client.heard(ack(client, xid, seconds, address), 1.0)
    assert client.lease is None and "lease" in client.trouble and client.wake_s > 5


def test_times_of_the_server_count_where_they_make_sense() -> None:
    for renewal, rebinding, want in ((100, 200, (100, 200)), (300, 200, (300, 525)), (0, 700, (300, 525))):
        client, xid = rebooting()
        times = {"RENEWAL": renewal.to_bytes(4, "big"), "REBINDING": rebinding.to_bytes(4, "big")}
        client.heard(ack(client, xid, **times), 1.0)
        assert client.lease and (client.lease.renew_s, client.lease.rebind_s) == want


def test_a_lease_for_ever() -> None:
    client, xid = rebooting()
    client.heard(ack(client, xid, INFINITE), 1.0)
    assert client.lease and client.lease.end_s == float("inf") and client.tick(1e12) == []


def test_what_is_not_for_us_is_passed_over() -> None:
    client, xid = rebooting()
    good = ack(client, xid)
    for change in ({"xid": xid ^ 1}, {"mac": mac(2)}, {"is_reply": False}, {"type": Type.OFFER}):
        values = {name: getattr(good, name) for name in good.__slots__} | change
        assert client.heard(Message(**values), 1.0) == [] and client.lease is None


def test_a_nak_waits_and_begins_anew() -> None:
    server = Server()
    server.given[b"\x01" + mac(1)] = IPv4Address("198.51.100.50")
    world = World(server)
    world.desk.want([workload(1)], world.now)
    world.desk.remember({"w1": IPv4Address("198.51.100.9")})
    world.desk.lead()
    world.run()
    assert "refused" in world.trouble("w1")
    world.run(11)
    assert world.addresses() == {"w1": "198.51.100.50"}


# ---- the desk ---------------------------------------------------------------------


def test_hundreds_have_one_each() -> None:
    server = Server()
    world = started(server, *range(1, 91))
    assert len(set(world.addresses().values())) == 90


def test_an_address_that_came_twice_is_declined() -> None:
    """The first keeps it; the second gets another one."""
    server = Server()
    world = started(server, 1)
    server.given[b"\x01" + mac(2)] = server.given[b"\x01" + mac(1)]
    world.desk.want([workload(1), workload(2)], world.now)
    world.run()
    assert world.addresses() == {"w1": "198.51.100.100"}
    assert world.trouble("w2") == "the DHCP server gave 198.51.100.100 twice: w1 has it"
    assert list(map(str, server.declined)) == ["198.51.100.100"]
    world.run(30)
    assert world.addresses()["w2"] == "198.51.100.101"


def test_an_address_that_does_not_fit_is_declined() -> None:
    server = Server()
    world = started(server, 1, fits="198.51.100.100 is in no Global Network")
    assert world.addresses() == {} and "no Global Network" in world.trouble("w1")
    assert server.declined


def test_a_workload_that_is_gone_gives_its_address_back() -> None:
    server = Server()
    world = started(server, 1, 2)
    world.carry(world.desk.want([workload(2)], world.now))
    assert set(server.given) == {b"\x01" + mac(2)} and set(world.addresses()) == {"w2"}
    assert server.heard[-1].type is Type.RELEASE


def test_both_nodes_of_a_pair_get_the_same_and_only_the_active_one_speaks() -> None:
    """S3.5: the key is the workload's MAC."""
    server = Server()
    first, second = started(server, 1, 2), World(server)
    second.desk.want([workload(1), workload(2)], second.now)
    second.run(10)
    assert len(server.heard) == 4 and second.addresses() == {}
    had = first.addresses()
    first.desk.stand_down()
    second.desk.lead()
    second.run()
    assert second.addresses() == had and first.addresses() == {}
    count = len(server.heard)
    first.run(10 * LEASE_S)
    assert len(server.heard) == count


def test_who_becomes_active_again_asks_for_what_it_had() -> None:
    """INIT-REBOOT."""
    server = Server()
    world = started(server, 1)
    world.desk.stand_down()
    assert world.desk.remembered() == {"w1": IPv4Address("198.51.100.100")}
    server.heard.clear()
    world.desk.lead()
    world.run()
    assert [m.type for m in server.heard] == [Type.REQUEST] and world.addresses()


def test_leases_of_an_earlier_run_go_on_and_are_renewed_at_once() -> None:
    server = Server()
    before = started(server, 1)
    world = World(server)
    world.desk.want([workload(1)], world.now)
    world.desk.resume(before.desk.leases(), world.now)
    assert world.addresses() == before.addresses()
    server.heard.clear()
    world.desk.lead()
    world.run()
    assert [(m.type, bool(int(m.ciaddr))) for m in server.heard] == [(Type.REQUEST, True)]


def test_taken_down_all_are_given_back() -> None:
    server = Server()
    world = started(server, 1, 2, 3)
    world.carry(world.desk.release_all(world.now))
    assert server.given == {} and world.desk.wake_s() == float("inf")
