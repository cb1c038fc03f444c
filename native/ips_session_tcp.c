/* ips_session_tcp.c: what a packet makes of a session's state, and how long a state may be idle.
 *
 * TCP, both sides seen: OPENING -> OPEN at the first segment of the other side -> one FIN: CLIENT_CLOSED or
 * SERVER_CLOSED, as patient as OPEN (RFC 6146 3.5.2) -> both FINs: CLOSED. A RST: RESET; as nobody can tell a
 * forged one, the session lives while packets come and four minutes after (RFC 7857 2.2). One-sided (only the
 * opener is seen): OPEN at its second segment, which a forged source cannot send rightly; its FIN begins the
 * end. A SYN on what is closing opens anew (RFC 5382 REQ-2 knows both directions). UDP and others: OPENING
 * until both sides spoke. Sequence numbers are not looked at, so that a session can go on at another node
 * (S3.8).
 */
#include "ips_session_table.h"
#include "ips_tcp.h"


static struct ips_step tcp_step(unsigned state, bool one_sided, bool from_opener, uint8_t flags) {
  struct ips_step s = {.state = (uint8_t)state};
  bool closing = state >= IPS_STATE_CLIENT_CLOSED,
       first = (flags & (IPS_TCP_SYN | IPS_TCP_ACK | IPS_TCP_RST | IPS_TCP_FIN)) == IPS_TCP_SYN;
  if (flags & IPS_TCP_RST) {
    s.state = IPS_STATE_RESET;
  } else if (first && closing && (from_opener || state >= IPS_STATE_CLOSED)) {
    s.state = IPS_STATE_OPENING;
    s.reopen = true;
  } else if (state == IPS_STATE_OPENING && (from_opener ? one_sided && !(flags & IPS_TCP_SYN) : true)) {
    s.promote = true;
    s.state = IPS_STATE_OPEN;
  }
  if (!(flags & IPS_TCP_FIN) || (flags & IPS_TCP_RST)) return s;
  if (s.state == IPS_STATE_OPEN) s.state = from_opener ? IPS_STATE_CLIENT_CLOSED : IPS_STATE_SERVER_CLOSED;
  else if (s.state == (from_opener ? IPS_STATE_SERVER_CLOSED : IPS_STATE_CLIENT_CLOSED))
    s.state = IPS_STATE_CLOSED;
  return s;
}

struct ips_step ips_session_step(unsigned proto, unsigned state, bool one_sided, bool from_opener,
                                 uint8_t tcp_flags) {
  if (proto == IPS_PROTO_TCP) return tcp_step(state, one_sided, from_opener, tcp_flags);
  bool open = state == IPS_STATE_OPEN || !from_opener;
  return (struct ips_step){.state = open ? IPS_STATE_OPEN : IPS_STATE_OPENING, .promote = true};
}

uint32_t ips_session_patience(const struct ips_sessions *t, unsigned proto, unsigned state, unsigned flags) {
  switch (proto) {
  case IPS_PROTO_UDP: case IPS_PROTO_UDPLITE: return ips_peek(t->ticks.udp);
  case IPS_PROTO_ICMP: case IPS_PROTO_ICMP6: return ips_peek(t->ticks.icmp);
  case IPS_PROTO_TCP: break;
  default: return ips_peek(t->ticks.other);
  }
  if (state == IPS_STATE_OPENING) return ips_peek(t->ticks.tcp_opening);
  if (state == IPS_STATE_OPEN) return ips_peek(t->ticks.tcp_open);
  bool half_closed = state == IPS_STATE_CLIENT_CLOSED || state == IPS_STATE_SERVER_CLOSED;
  return half_closed && !(flags & IPS_SESSION_ONE_SIDED) ? ips_peek(t->ticks.tcp_open)
                                                         : ips_peek(t->ticks.tcp_closing);
}
