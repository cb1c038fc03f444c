/* ips_relay_api.h: the far end of a mirror that keeps no table: what comes is handed on, then acknowledged.
 *
 * For transports beside the mirror's own (a database): the agent is a standby of its engine, over loopback. It
 * reads datagrams in (ips_relay_input), takes the changes out (ips_relay_take), stores them, and only then lets
 * the acknowledgements go (ips_relay_emit): so "acknowledged" means "stored". While it stores nothing it emits
 * nothing, and its engine takes it for gone. One thread. All memory at creation. Read by cffi too.
 */
#ifndef IPS_RELAY_API_H
#define IPS_RELAY_API_H
#include "ips_mirror_api.h"

enum ips_relay_what {          /* of a change: enum ips_session_op, or */
  IPS_RELAY_BEGIN = 16,        /* a snapshot of everything begins; what was known before is in doubt */
  IPS_RELAY_END = 17,          /* it is complete: what it did not bring does not exist */
  IPS_RELAY_BROKEN = 18,       /* it never will be */
};
struct ips_relay_change {
  struct ips_session_rec rec;  /* of an upsert or deletion */
  uint64_t epoch;              /* of the node that says so */
  uint32_t what;
  uint32_t is_new_origin;      /* BEGIN: versions of before do not compare with those that come */
};
struct ips_relay_config {
  struct ips_seal_config seal;
  uint32_t window;             /* datagrams held out of order; 2^1 .. 2^12 */
  uint32_t tombstones;         /* power of two >= 8 */
};

struct ips_relay;
struct ips_relay *ips_relay_new(const struct ips_relay_config *c); /* NULL: no memory, or out of range */
void ips_relay_free(struct ips_relay *r);
/* A datagram from the engine. What the seal said (ips_seal.def); -1: take first, there is no room for what it
 * may bring. */
int ips_relay_input(struct ips_relay *r, const uint8_t *bytes, size_t len, uint64_t now_ns);
/* The oldest changes that were not taken yet, in order. Returns how many. */
size_t ips_relay_take(struct ips_relay *r, struct ips_relay_change *out, size_t room);
/* The next datagram to the engine: handshakes, acknowledgements of everything that was taken. 0: none is due.
 * Nothing that was not taken is acknowledged: then 0 too. out: room for IPS_SEAL_DATAGRAM. */
size_t ips_relay_emit(struct ips_relay *r, uint64_t now_ns, uint8_t *out);
/* Whether the engine feeds it, and whether everything that it has is here. */
bool ips_relay_is_fed(const struct ips_relay *r, uint64_t now_ns);
bool ips_relay_is_complete(const struct ips_relay *r, uint64_t now_ns);

#endif
