/* ips_dispatch_api.h: clusters: one address, several servers, and which of them gets a packet (SYSTEMS.md S2.4, S2.5).
 *
 * The packet stays as it is; the host sends it to the chosen server's hardware address. A connection is a session
 * of kind DISPATCH: it stays with its server, whatever the weights become. A new one is chosen by consistent
 * hashing of its addresses, ports and protocol, by weight: both nodes of a pair choose the same. Weights and states
 * come from outside (the agent's probes); a set of clusters is constant, and replaced as a whole. Read by cffi too.
 */
#ifndef IPS_DISPATCH_API_H
#define IPS_DISPATCH_API_H
#include "ips_api.h"
#include "ips_session_api.h"

enum ips_dispatch_const { IPS_CLUSTERS = 64, IPS_SERVERS = 512 /* in all of them */ };

enum ips_server_state {
  IPS_SERVER_UP = 1,       /* takes its share of new connections, by weight */
  IPS_SERVER_DRAINING = 2, /* takes none; those that it has stay */
  IPS_SERVER_FAILED = 3,   /* takes none; what can begin anew (a SYN, a datagram) goes to another one */
};

struct ips_cluster_rec {
  uint8_t address[16];     /* that clients know */
  uint32_t first_server, n_servers; /* in a row */
  uint8_t family, reserved[7];
};
struct ips_server_rec {
  uint8_t address[16];     /* its own, of its cluster's family: what it is called in sessions and on the mirror's wire */
  uint32_t weight;         /* relative to the others of its cluster; 0: takes nothing new */
  uint8_t state;           /* enum ips_server_state */
  uint8_t reserved[3];
};

/* Of one server, in all clusters, by one packet thread, which alone writes it. */
struct ips_server_count {
  uint64_t opened;         /* connections */
  uint64_t packets, bytes;
  uint64_t untracked;      /* of them, those that the session table had no room for: sent by the hash alone */
  uint64_t unsent;         /* the host could not send: no hardware address known, or the interface refused */
  uint64_t reserved[3];
};

struct ips_clusters;
/* counts: one for each number that an address can have in the session table (ips_sessions_addresses), of each
 * worker in a row, or NULL. frags: for ports of fragments. NULL: no memory, a value out of range, an address twice,
 * or the table has no number left for a server's address. *fault, if not NULL, says which, in words. */
struct ips_clusters *ips_clusters_new(struct ips_sessions *s, const struct ips_cluster_rec *clusters, size_t n_clusters,
                                      const struct ips_server_rec *servers, size_t n_servers,
                                      struct ips_frag_table *frags, struct ips_server_count *counts,
                                      const char **fault);
void ips_clusters_free(struct ips_clusters *s);
/* Between frames; NULL: none. Needs ips_worker_set_flows with that session table. */
void ips_worker_set_clusters(struct ips_worker *w, const struct ips_clusters *s);

/* ips_pkt.server of a DISPATCHED packet is 1 + the number of the server's address: it never changes while the
 * session table lives, and is of this process alone. NONE: the address has none. */
uint32_t ips_sessions_addresses(const struct ips_sessions *s); /* numbers that there can be */
uint32_t ips_sessions_number(const struct ips_sessions *s, int family, const uint8_t *address);

/* Sessions of a server. left: all that are not over; open: of them, those whose client has not closed. One side alone
 * is seen, so both say "at most". */
struct ips_server_use { uint32_t left, open; };
void ips_sessions_use(const struct ips_sessions *s, uint32_t number, struct ips_server_use *out);

/* Who gets new connections: writes the server's place in its cluster for each slot of the cluster's table, of which
 * there are `room` at least. Returns how many slots there are; 0: nobody takes any. For tests and people. */
uint32_t ips_clusters_table(const struct ips_clusters *s, uint32_t cluster, uint16_t *out, uint32_t room);

#endif
