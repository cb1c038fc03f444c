/* ips_flow_api.h: what a tracked connection is, for everyone who names one.
 *
 * A session record is the value that passes between the session table, the mirror, NumPy dumps and
 * Python: plain, of one size, without a pointer or an index that means something on one node only. On the wire
 * it has a form of its own (the mirror's). Read by the compiler and by cffi, as ips_api.h is.
 *
 * Sources: SYSTEMS.md S2.7, S3.1, S4.3; RFC 4787, RFC 5382 (what a NAT's session is).
 */
#ifndef IPS_FLOW_API_H
#define IPS_FLOW_API_H
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>

/* A flow as its opener sends it, before any translation. Addresses: 16 bytes, IPv4 in the first four, the
 * rest zero. Ports: host order; ICMP echo: the identifier in src_port, 0 in dst_port; protocols without ports:
 * 0, 0. */
struct ips_flow {
  uint8_t src[16], dst[16];
  uint16_t src_port, dst_port;
  uint8_t family;       /* 4 or 6 */
  uint8_t proto;        /* IP protocol number */
  uint16_t realm;       /* number, from the configuration, of what tracks it; the same at every node of a pair */
};

enum ips_session_kind {
  IPS_SESSION_TRACK = 1,    /* followed only: translation is stateless (S4.3) */
  IPS_SESSION_NAPT = 2,     /* source -> (mapped, mapped_port), a public address of a pool (S3.5) */
  IPS_SESSION_DISPATCH = 3, /* destination stays; `mapped` is the server it was given to (S2.4) */
};

enum ips_session_state {
  IPS_STATE_NONE = 0,
  IPS_STATE_OPENING = 1,       /* TCP: SYN seen; others: packets in one direction only */
  IPS_STATE_OPEN = 2,          /* TCP: both sides spoke, or a second segment of an observed client; others: both ways */
  IPS_STATE_CLIENT_CLOSED = 3, /* the opener's FIN was seen */
  IPS_STATE_SERVER_CLOSED = 4, /* the other side's FIN was seen */
  IPS_STATE_CLOSED = 5,        /* both FINs: lingers */
  IPS_STATE_RESET = 6,         /* RST seen: lingers */
};

enum ips_session_flags {
  IPS_SESSION_FROM_OUTSIDE = 1, /* of NAPT: begun by flow.dst; flow.src is the inside all the same */
  IPS_SESSION_ONE_SIDED = 2,    /* only the opener's packets are seen: the other side's close is not */
};

enum ips_session_op { IPS_SESSION_UPSERT = 1, IPS_SESSION_DELETE = 2 };

struct ips_session_rec {
  struct ips_flow flow;
  uint8_t mapped[16];
  uint16_t mapped_port;  /* host order; 0: none */
  uint8_t kind;          /* enum ips_session_kind */
  uint8_t state;         /* enum ips_session_state */
  uint32_t flags;        /* enum ips_session_flags: what has to survive a takeover */
  uint64_t version;      /* of this session, given under its lock, rising with each change, deletion included */
  uint32_t age_s;        /* since it was opened */
  uint32_t idle_ms;      /* since its last packet */
  uint64_t packets[2], bytes[2]; /* 0: from the opener, 1: towards it */
};

#endif
