/* ips_path.h: what was learned about the path MTU to an end point (RFC 8201, RFC 1191).
 *
 * A generation is immutable and says what is configured; an ICMP error on a tunnel or
 * a probe of the agent may know less is possible now. One small table per node,
 * shared by all workers, keyed by the end point's address so that it outlives
 * generations. Readers take no lock and pay one load while nothing was learned.
 * A cell's key is written once, so a reader never sees half of one; the price is that it is never
 * given up. Where there is no room nothing is learned: errors are still relayed, so each
 * sender finds out by itself.
 */
#ifndef IPS_PATH_H
#define IPS_PATH_H
#include "ips_core.h"
#include <stdatomic.h>

enum { IPS_PATH_CELLS = 1024, IPS_PATH_PROBES = 16 };

struct ips_path_cell {
  _Atomic uint64_t expires_ns; /* 0: free or forgotten */
  _Atomic uint32_t mtu;
  _Atomic uint32_t used;       /* key is valid (release) */
  uint8_t key[16];
};
struct ips_paths {
  _Atomic uint32_t learned;    /* changes so far; 0: nothing to look for */
  atomic_flag writing;
  struct ips_path_cell cells[IPS_PATH_CELLS];
};

/* The address that names the path to an end point. */
static inline const uint8_t *ips_path_key(const struct ips_endpoint_rec *e) {
  return e->tunnel_family ? e->tunnel_remote : e->local;
}

/* Does every packet to e, or some of them, go through its tunnel? */
static inline bool ips_path_has_tunnel(const struct ips_endpoint_rec *e) {
  return e->encap != IPS_ENCAP_NONE || e->flags & (IPS_EP_DISTRIBUTION | IPS_EP_TRACE_TUNNEL);
}
/* Bytes that every path of that IP version carries (RFC 791, RFC 8200 5). Nothing below may be configured or
 * learned: headers are taken off it without a look. */
static inline uint32_t ips_path_least(const struct ips_endpoint_rec *e) {
  return (ips_path_has_tunnel(e) ? e->tunnel_family : e->family) == 4 ? 68 : 1280;
}

/* For `mtu` bytes until expires_ns (the worker's clock); mtu 0 forgets. False if there was no room. */
bool ips_path_learn(struct ips_paths *paths, const uint8_t key[16], uint32_t mtu, uint64_t expires_ns);
/* Bytes that were learned and still hold; 0: nothing. */
uint32_t ips_path_learned(const struct ips_paths *paths, const uint8_t key[16], uint64_t now_ns);

/* Bytes of the largest packet towards e now; UINT32_MAX where nothing limits it. */
static inline uint32_t ips_path_mtu(const struct ips_paths *paths, const struct ips_endpoint_rec *e,
                                    uint64_t now_ns) {
  uint32_t mtu = e->path_mtu ? e->path_mtu : UINT32_MAX;
  if (ips_unlikely(atomic_load_explicit(&paths->learned, memory_order_acquire))) {
    uint32_t learned = ips_path_learned(paths, ips_path_key(e), now_ns);
    if (learned && learned < mtu) mtu = learned;
  }
  return mtu;
}
#endif
