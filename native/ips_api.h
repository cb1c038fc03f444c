/* ips_api.h: the C core as its hosts see it (ipshare-engine, the VPP plugin, Python).
 *
 * Read by the C compiler and, with the lines that begin with '#' removed, by
 * cffi; so: plain types and prototypes, no macros with arguments, no inline code.
 * The packet functions themselves are inline in the other headers; what is
 * declared here is the door for everyone who does not need them inline.
 *
 * Bytes on the wire and in records are big-endian where a name ends in _be and
 * for every address; all other integers are host order (records never leave the
 * machine). An address is 16 bytes; IPv4 uses the first four, the rest is zero.
 */
#ifndef IPS_API_H
#define IPS_API_H
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>

/* ---- packets ---------------------------------------------------------- */

enum ips_gso { IPS_GSO_NONE = 0, IPS_GSO_TCP = 1, IPS_GSO_UDP = 2 };
enum ips_gso_flags { IPS_GSO_FIXED_ID = 1 }; /* every segment keeps the IPv4 id (RFC 6864: DF is set) */

/* L4 checksum of a packet, as its host received it. */
enum ips_csum {
  IPS_CSUM_FULL = 0,    /* field is complete: update it (RFC 1624) */
  IPS_CSUM_PARTIAL = 1, /* field is the uncomplemented pseudo-header sum (TUN NEEDS_CSUM) */
  IPS_CSUM_EGRESS = 2,  /* egress recomputes it (VPP offload flag): leave the field alone */
};

struct ips_pkt {
  uint8_t *data;        /* first byte of the IP header */
  uint32_t len;         /* bytes at data that may be read and written */
  uint32_t total_len;   /* bytes of the whole packet; > len only where a host chains buffers */
  uint16_t headroom;    /* writable bytes before data */
  uint16_t gso_size;    /* payload bytes per segment of a GSO super-packet, else 0 */
  uint8_t gso_type;     /* enum ips_gso */
  uint8_t csum;         /* enum ips_csum */
  uint16_t csum_start;  /* of IPS_CSUM_PARTIAL: offset of the L4 header from data */
  uint16_t csum_offset; /* of IPS_CSUM_PARTIAL: offset of the field from csum_start */
  uint16_t gso_flags;   /* enum ips_gso_flags; 0 from a host */
  uint32_t counter;     /* out: counter index of the binding that decided, or ~0 */
  uint32_t endpoint;    /* out: index of the end point chosen, or ~0 */
  uint32_t server;      /* out: 1 + number of the server it is dispatched to (ips_dispatch_api.h), else 0 */
};

/* ---- verdicts: ips_verdict.def is the only list ------------------------ */

/* What becomes of the packet. */
enum ips_disposition {
  IPS_SEND = 0,     /* the packet, changed in place, goes on */
  IPS_CONSUMED = 1, /* what has to go on was emitted; the packet itself is done */
  IPS_DROP = 2,     /* nothing goes on but possibly an emitted ICMP error */
};
int ips_verdict_count(void);
const char *ips_verdict_name(int verdict); /* "TTL_EXPIRED"; NULL if out of range */
const char *ips_verdict_text(int verdict); /* a sentence for people */
int ips_verdict_disposition(int verdict);

/* ---- packet functions for those who need them one at a time -------------- */

struct ips_view {
  uint8_t family;         /* 4 or 6 */
  uint8_t proto;          /* upper-layer protocol; of a non-first fragment, what its header says */
  uint8_t ttl;            /* TTL or hop limit */
  uint8_t tos;            /* DSCP and ECN */
  uint16_t l4;            /* offset of the upper-layer header (of a non-first fragment: of its payload) */
  uint16_t fragment_at;   /* bytes; 0 in a whole packet and in a first fragment */
  uint32_t ip_len;        /* length by the IP header; of a GSO super-packet the length it has */
  bool is_fragment;       /* first or later; not an atomic fragment (RFC 6946) */
  bool more_fragments;
  bool dont_fragment;     /* DF; always true for v6 */
  bool routing_active;    /* v6 routing header with segments left: L4 checksum does not cover destination */
  bool has_ah;            /* proto is AH; what is behind it is not looked at */
  uint16_t frag_header;   /* v6: offset of the fragment header, or 0 */
  uint32_t frag_id;       /* of a fragment: identification, host order; v4: 16 bits */
};
int ips_check(struct ips_pkt *p, struct ips_view *v); /* ips_parse: a verdict, and *v where it is OK */
/* ips_parse and ips_rewrite: field 0 = source, 1 = destination becomes address (4 or 16 bytes). A verdict. */
int ips_translate(struct ips_pkt *p, int field, const uint8_t *address);
int ips_clamp(struct ips_pkt *p, uint32_t mss); /* ips_parse and ips_clamp_mss; mss in bytes */
/* ips_parse and ips_make_error; kind: enum ips_error_kind. Bytes written to out, 0: no error is due. */
size_t ips_error_about(struct ips_pkt *p, int kind, uint32_t mtu, const uint8_t *source, uint8_t *out,
                       size_t room);
int ips_answer_echo(struct ips_pkt *p); /* 1: a whole echo request became its reply; 0: anything else stays */

/* ---- records of a table image ------------------------------------------ */

/* An image is one file: header, then the sections in the order of the counts,
 * packed, each record as below. DESIGN: S1.6, S1.8, S1.9. */
enum ips_image_const {
  IPS_IMAGE_MAGIC = 0x54535049, /* "IPST" */
  IPS_IMAGE_VERSION = 2,
};
enum ips_image_flags {
  IPS_IMAGE_DELTA = 1, /* bindings are changes to base_generation; all other sections are complete */
  IPS_IMAGE_ANTISPOOF = 2, /* outer side: a source in a Global Network is a verdict (SPOOFED) */
};
struct ips_image_header {
  uint32_t magic, version;
  uint32_t flags, header_bytes;
  uint64_t total_bytes;
  uint64_t digest;          /* ips_digest() of all after the header: the content's name, whatever number it
                               gets. Of the header, sizes and counts are held against each other, (term,
                               revision) and base against the live generation; the rest is told by
                               ips_tables_info.settings */
  uint64_t base_generation; /* of a delta; else 0 */
  uint64_t term, revision;
  uint32_t network_bytes, endpoint_bytes, policy_bytes, member_bytes, peer_bytes, binding_bytes; /* of a record */
  uint32_t n_networks, n_endpoints, n_policies, n_members, n_peers, n_bindings;
  uint32_t roles;           /* IPS_ROLE_* of this node */
  uint32_t reply_policy;    /* policy of distribution points for tunnelled replies, or ~0 */
  uint8_t icmp_source4[16]; /* source of ICMP errors made by this node; all zero: none are sent */
  uint8_t icmp_source6[16];
  uint32_t icmp_rate;       /* ICMP errors per second and worker */
  uint32_t reserved;
};

enum ips_roles {
  IPS_ROLE_OUTER = 1,        /* destination global -> local (distribution point) */
  IPS_ROLE_INNER = 2,        /* destination local -> global (end point) */
  IPS_ROLE_REPLY_TUNNEL = 4, /* end point: source global goes, encapsulated, to reply_policy */
  IPS_ROLE_REPLY_LOCAL = 8,  /* end point: source global -> local (symmetric path) */
  IPS_ROLE_REPLY_GLOBAL = 16,/* distribution point: source local -> global (symmetric path) */
};

enum ips_unmatched { IPS_UNMATCHED_DROP = 0, IPS_UNMATCHED_UNREACHABLE = 1, IPS_UNMATCHED_PASS = 2 };

struct ips_network_rec { /* a Global Network */
  uint8_t prefix[16];
  uint8_t family, prefix_len; /* 4 or 6; bits */
  uint8_t unmatched;          /* enum ips_unmatched */
  uint8_t reserved[5];
};

enum ips_encap { IPS_ENCAP_NONE = 0, IPS_ENCAP_IPIP = 1, IPS_ENCAP_GUE = 2 };
enum ips_endpoint_flags {
  IPS_EP_SELF = 1,      /* this node is the end point: inner translation applies */
  IPS_EP_MSS_CLAMP = 2, /* clamp TCP MSS to what path_mtu carries */
  IPS_EP_DISTRIBUTION = 4, /* a distribution point, member of reply_policy only */
  IPS_EP_TRACE_TUNNEL = 8, /* rewriting, but low-TTL packets take the tunnel: traceroute shows every hop */
  IPS_EP_WAY = 16,      /* at an end point: the channel to another one, for connections that a change of a policy left
                           there. local, prefix_len 0: the tunnel address by which distribution points know it */
  /* Of channels alone, GUE: the header has four octets more, the first of which says the mark. In an image: of ways,
     FINAL. PREVIOUS, in no image: of packets to an end point that has got their slot of a policy; behind the four octets
     stands `local`, of `family`: the tunnel address of the one that had it. */
  IPS_EP_MARK_PREVIOUS = 0x2000, IPS_EP_MARK_FINAL = 0x4000, IPS_EP_MARK_ASK = 0x8000,
};
/* One local prefix of an end point. An end point with a v4 and a v6 local
 * network is two records; `site` ties them together. prefix_len 0: behind an encapsulated path, for bindings
 * of that family whose packets keep their destination. */
struct ips_endpoint_rec {
  uint8_t local[16];           /* first address of the local prefix; zero, with prefix_len 0: none
                                  (distribution points, and end points reached by encapsulation only) */
  uint8_t tunnel_remote[16];   /* tunnel address there; all zero: none */
  uint8_t tunnel_local[16];    /* our own tunnel address, the source */
  uint8_t family, prefix_len;  /* of local */
  uint8_t encap;               /* enum ips_encap: how packets go there (NONE: rewritten) */
  uint8_t tunnel_family;       /* 4, 6, or 0: no tunnel */
  uint16_t gue_port;           /* destination port, host order */
  uint16_t flags;              /* IPS_EP_* */
  uint32_t path_mtu;           /* bytes of the largest IP packet on the way there; 0: no check */
  uint16_t site;               /* opaque; the same in all records of one end point; ips_lookup returns it */
  uint16_t via;                /* opaque: the host's number of the next hop there; 0: it looks one up */
};

struct ips_policy_rec { /* S1.8 */
  uint32_t first_member, n_members;
  uint32_t table_size;    /* prime, > 100 x members; 0: chosen by the core */
  uint8_t v4_bits, v6_bits; /* leading client bits that are hashed; usually 32 and 64; 0: all clients alike */
  uint16_t n_previous;    /* behind its members: those that it had before, while their connections drain */
  uint64_t seed;
};
/* In the Maglev table a member is known by its local prefix, one without by its tunnel_remote: the same
 * on all nodes, whatever their indices are. */
struct ips_member_rec {
  uint32_t endpoint; /* index; for a dual-stack end point the record of the policy's family */
  uint32_t weight;   /* 0: takes nothing new */
};

/* A member of a group (S5): what its peers call it, and the address that it has now. Only traffic between members of
 * one group is translated, in the names of both, at the nodes next to them. No address belongs to two members. */
enum ips_peer_flags {
  IPS_PEER_HERE = 1, /* this node is next to it */
  IPS_PEER_ALSO = 2, /* `now` is understood and not used: the next address, or the last one. Another record says
                        which is used */
};
struct ips_peer_rec {
  uint8_t address[16]; /* what its peers call it */
  uint8_t now[16];     /* its address on the way; all zero: the same */
  uint8_t family, flags;
  uint16_t reserved;
  uint32_t group;      /* opaque: members of one group have the same number */
};

enum ips_kind {
  IPS_KIND_NONE = 0,     /* in a delta: remove this binding, if it is there; of an answer: no binding here */
  IPS_KIND_ENDPOINT = 1, /* target = end point; local = offset from its local prefix, 128 bit big-endian
                            (IPv4: the first four bytes) */
  IPS_KIND_POLICY = 2,   /* target = policy; local = offset, the same at every member */
  IPS_KIND_ADDRESS = 3,  /* target = end point (for path_mtu, flags); local = an unrelated address */
  IPS_KIND_HERE = 4,     /* the Global IP is served on this node untranslated */
  IPS_KIND_DOWN = 5,     /* device known to be down: host unreachable */
};
enum ips_binding_flags {
  IPS_BINDING_COPY = 1, /* S1.16 */
  IPS_BINDING_TRACK = 2, /* its flows are followed in the session table (S4.3), where the host has one; */
  IPS_BINDING_TRACK_BOTH = 4, /* ... and the replies pass this node too */
};
struct ips_binding_rec {
  uint8_t global[16];
  uint8_t local[16];
  uint8_t family, prefix_len; /* of global; a prefix binding maps host bits 1:1 */
  uint8_t kind, flags;
  uint32_t target;
  uint64_t tag; /* opaque to the core (Python: which set it came from) */
};

uint64_t ips_digest(const void *bytes, size_t n);

/* Why an image was refused. */
enum ips_load_error {
  IPS_LOAD_OK = 0,
  IPS_LOAD_TRUNCATED = 1,     /* shorter than header or total_bytes says */
  IPS_LOAD_BAD_MAGIC = 2,
  IPS_LOAD_BAD_VERSION = 3,
  IPS_LOAD_BAD_RECORD_SIZE = 4,
  IPS_LOAD_BAD_DIGEST = 5,
  IPS_LOAD_STALE_BASE = 6,    /* delta against a generation that is not the live one */
  IPS_LOAD_STALE_TERM = 7,    /* (term, revision) lower than the live one */
  IPS_LOAD_BAD_FAMILY = 8,
  IPS_LOAD_BAD_PREFIX = 9,    /* length out of range or host bits set */
  IPS_LOAD_BAD_KIND = 10,
  IPS_LOAD_BAD_TARGET = 11,   /* index out of range, or wrong family */
  IPS_LOAD_BAD_OFFSET = 12,   /* offset + binding does not fit into the local prefix */
  IPS_LOAD_NOT_SORTED = 13,   /* bindings must ascend by (family, global, prefix_len) */
  IPS_LOAD_DUPLICATE = 14,    /* equal prefix twice, or an address of two members of groups */
  IPS_LOAD_OUTSIDE = 15,      /* binding outside of every network */
  IPS_LOAD_OVERLAP = 16,      /* two bindings claim one local address; judged where roles make this node map
                                 it back, and not of end points that are encapsulated to (S1.6) */
  IPS_LOAD_TOO_LARGE = 17,    /* more than the core can index */
  IPS_LOAD_NO_MEMORY = 18,
  IPS_LOAD_BAD_POLICY = 19,   /* no member, weight sum 0, table size not prime */
  IPS_LOAD_BAD_ENDPOINT = 20, /* encapsulation without tunnel, bad MTU */
  IPS_LOAD_BAD_NETWORK = 21,  /* networks overlap */
  IPS_LOAD_BAD_PEER = 22,     /* an address of a group's member that is none, or is both old and new */
};
struct ips_load_status {
  int error;        /* enum ips_load_error */
  uint32_t section; /* 0 header, 1 network, 2 end point, 3 policy, 4 member, 5 binding, 6 peer */
  uint32_t index;   /* of the first bad record in its section; ~0: a binding that a delta kept */
};
const char *ips_load_error_text(int error);

/* ---- tables: generations, prepared aside, committed by one store ------- */

struct ips_tables; /* all generations of one node and the authoritative records */

/* workers: number of packet workers that will call ips_worker_begin/_end.
 * NULL if out of memory. */
struct ips_tables *ips_tables_new(uint32_t workers);
void ips_tables_free(struct ips_tables *t); /* no worker may be inside */

/* Validates the image and builds a generation beside the live one. Nothing that
 * a packet sees changes. Returns the number of the prepared generation (> live),
 * or 0 and *st. A second prepare discards the first. Control thread only. */
uint64_t ips_tables_prepare(struct ips_tables *t, const void *image, size_t bytes,
                            struct ips_load_status *st);
/* Makes it live: one release store. 0 = done (also if already live), -1 = no such generation. */
int ips_tables_commit(struct ips_tables *t, uint64_t generation);
void ips_tables_abort(struct ips_tables *t);
/* The previous generation becomes live again, under a new number, which is
 * returned; 0 if there is none (or no memory). Rolling back twice returns to where one was. It bears the
 * highest (term, revision) ever committed, and images below that stay refused: what is live is told by digest
 * and settings. A prepared generation is discarded. */
uint64_t ips_tables_rollback(struct ips_tables *t);
/* Frees what no worker can see any more; returns bytes freed. Cheap; for the control thread, now and then. */
size_t ips_tables_reclaim(struct ips_tables *t);

/* A redundant pair's lease (DESIGN.md 9): a frame that begins at or after until_ns (CLOCK_BOOTTIME) translates
 * nothing, verdict PAIR_NOT_ACTIVE. UINT64_MAX, as at first: the node is no half of a pair. Any thread. */
void ips_tables_set_lease(struct ips_tables *t, uint64_t until_ns);

struct ips_tables_info {
  uint64_t generation, previous, prepared; /* 0: none */
  uint64_t term, revision, digest;         /* of the live generation: header digest of its complete image */
  uint64_t settings;                       /* digest of its header's flags and roles .. icmp_rate: what else
                                              it does */
  uint64_t bytes;                          /* memory of all generations */
  uint32_t n_networks, n_endpoints, n_policies, n_members, n_peers, n_bindings, roles;
};
void ips_tables_info(const struct ips_tables *t, struct ips_tables_info *out);
/* Complete image of the live generation; returns bytes needed; writes only if they fit. */
size_t ips_tables_dump(const struct ips_tables *t, void *out, size_t room);
/* Counter cells in use by any generation, the prepared one included: indices 0 .. n-1. */
uint32_t ips_tables_counter_cells(const struct ips_tables *t);
/* Counter cells, in the live generation, of n binding records: those of record i are index[i] .. index[i] +
 * span[i] - 1, one for each address of an IPv4 prefix, one for an IPv6 prefix; index ~0, span 0: none. A v4
 * cell belongs to its address as long as the network exists, bound or not; a v6 cell to its prefix as long as
 * that is bound, whatever to. */
void ips_tables_counter_index(const struct ips_tables *t, const struct ips_binding_rec *recs, size_t n,
                              uint32_t *index, uint32_t *span);
/* Cells that counted for something else before and that the prepared generation gives to new networks or
 * bindings. Between prepare and commit no worker writes them: the host clears them, or notes their values as
 * where counting begins. Returns how many ranges there are; writes at most `room`. */
struct ips_cell_range { uint32_t first, n; };
size_t ips_tables_fresh_cells(const struct ips_tables *t, struct ips_cell_range *out, size_t room);

/* ---- questions to the live generation (control thread only) ---- */

struct ips_lookup {
  uint8_t found;         /* 0: in no network / no local prefix of ours; the rest is then 0 and ~0 */
  uint8_t kind, flags, unmatched; /* enum ips_kind (NONE: no binding), ips_binding_flags, ips_unmatched */
  uint32_t endpoint;     /* index, or ~0 */
  uint32_t counter;      /* cell, or ~0 */
  uint32_t site;         /* of the end point */
  uint8_t address[16];   /* the other side's address */
};
/* Keys and clients: 16 bytes, IPv4 in the first four. client NULL: a policy's end point is not chosen (~0).
 * The array forms take n keys of 16 bytes in a row (and n clients, or NULL). Return how many were found. */
size_t ips_lookup_global(const struct ips_tables *t, int family, const uint8_t *keys, const uint8_t *clients,
                         size_t n, struct ips_lookup *out);
size_t ips_lookup_local(const struct ips_tables *t, int family, const uint8_t *keys, size_t n,
                        struct ips_lookup *out);
/* The end point that a policy chooses for a client of a Global IP; ~0: no such policy, nothing loaded. */
uint32_t ips_lookup_policy(const struct ips_tables *t, uint32_t policy, int family, const uint8_t *client,
                           const uint8_t *global);
/* The table that a policy over n end points with these weights has: out[slot] = position in `ends`. size:
 * prime, > 100 * n. For tests, and for saying beforehand which share of clients a change moves. -1: no
 * memory, no weight, bad size. */
int ips_maglev_table(const struct ips_endpoint_rec *ends, const uint32_t *weights, uint32_t n, uint32_t size,
                     uint16_t *out);
/* The binding that decides about a Global IP: the longest that covers it. 0: none. */
int ips_lookup_binding(const struct ips_tables *t, int family, const uint8_t *key,
                       struct ips_binding_rec *out);
/* Nanoseconds for n look-ups of global (local = 0) or local keys, `rounds` times over, as workers do them.
 * ahead: so many keys early a global key is prefetched, as a host that holds a batch does; 0: never. */
uint64_t ips_bench_lookup(const struct ips_tables *t, int local, int family, const uint8_t *keys,
                          const uint8_t *clients, size_t n, uint32_t rounds, uint32_t ahead);

/* ---- workers: the packet path ------------------------------------------ */

/* One for each packet thread. emit() is called for packets made by the core;
 * it must copy or send at once. */
enum ips_emit {
  IPS_EMIT_PACKET = 0, /* send: a segment, fragment, coalesced or answering packet */
  IPS_EMIT_ERROR = 1,  /* send: an ICMP error made here */
  IPS_EMIT_COPY = 2,   /* do not send: the packet as it came, before translation; its binding
                          asks for a copy (S1.16). p->counter says which */
};
typedef void (*ips_emit_fn)(void *arg, struct ips_pkt *p, int kind);
struct ips_worker;
struct ips_worker *ips_worker_new(struct ips_tables *t, uint32_t index, ips_emit_fn emit, void *arg);
void ips_worker_free(struct ips_worker *w);
/* What the host can do; between frames. Whether emit() takes UDP super-packets (gso_type UDP, checksum
 * PARTIAL); 0 at first. GUE packets made of one TCP super-packet are then emitted as few of those. */
void ips_worker_set_trains(struct ips_worker *w, int makes_trains);
/* Whether TCP segments that come out of tunnels are joined to super-packets (verdict COALESCED) and emitted
 * at ips_worker_end or before; 1 at first. 0: each goes on by itself, at once (DECAPSULATED). */
void ips_worker_set_coalescing(struct ips_worker *w, int coalesces);
/* A frame: root is loaded once, time (CLOCK_BOOTTIME ns) is given once. Between
 * _end and _begin the worker holds no reference to any generation. */
void ips_worker_begin(struct ips_worker *w, uint64_t now_ns);
/* Within a frame, for hosts that go on to read packets in it: whether there is still a lease. Half of a pair only. */
void ips_worker_look_again(struct ips_worker *w, uint64_t now_ns);
bool ips_worker_is_paired(const struct ips_worker *w);
void ips_worker_end(struct ips_worker *w);
/* One packet; returns a verdict. The disposition says what to do with p. */
int ips_outer(struct ips_worker *w, struct ips_pkt *p); /* a packet that entered the outer side */
int ips_inner(struct ips_worker *w, struct ips_pkt *p); /* a packet that entered the inner side */
/* For hosts that hold several packets: asks for the memory that the tables (first step, about eight packets
 * before the packet's turn) and its counters (second step, about four before) are in. Within a frame; changes
 * nothing. side: 0 outer, 1 inner. ip: `len` bytes. */
enum ips_prefetch_step { IPS_PREFETCH_FIRST = 0, IPS_PREFETCH_SECOND = 1 };
void ips_prefetch(const struct ips_worker *w, int side, const uint8_t *ip, uint32_t len, int step);

/* Counters of one worker: verdicts[side][verdict], bindings[cell] = packets and
 * bytes, and a bounded sparse matrix of (cell, verdict) for verdicts other than OK. */
struct ips_cell { uint64_t packets, bytes; };
struct ips_drop_cell { uint32_t counter, verdict; uint64_t packets; };
enum ips_counter_const { IPS_MAX_VERDICTS = 64, IPS_DROP_CELLS = 16384 };
struct ips_counters {
  uint64_t verdicts[2][64];       /* 0 outer, 1 inner */
  uint64_t drop_overflow;         /* events that found no cell */
  uint64_t errors_sent, errors_limited; /* ICMP errors made here; withheld by icmp_rate */
  uint64_t frames, packets;
  struct ips_drop_cell drops[16384];
};
/* Where the host wants them (shared memory). cells may be NULL: no per-binding counters. */
void ips_worker_set_counters(struct ips_worker *w, struct ips_counters *c, struct ips_cell *cells,
                             uint32_t n_cells);

/* ---- tunnels, offloads, fragments -------------------------------------- */

/* Each ..._packet parses p itself and returns the parser's verdict if there is one; the
 * forms that take a view, and all contracts, are in ips_encap.h, ips_core.h, ips_gro.h, ips_frag.h. */
struct ips_tunnel_info {
  uint8_t encap;        /* enum ips_encap that the packet came in */
  uint8_t family;       /* of the outer header */
  uint16_t gue_flags;   /* of a variant 0 header; none is accepted so far: 0 */
};
int ips_encap_packet(struct ips_pkt *p, const struct ips_endpoint_rec *e, uint16_t entropy, uint16_t ip_id);
int ips_decap_packet(struct ips_pkt *p, struct ips_tunnel_info *info);

enum ips_tunnel_error_kind {
  IPS_TUNNEL_ERROR_NONE = 0,        /* not an error about a tunnel packet, or not one to act on */
  IPS_TUNNEL_ERROR_TOO_BIG = 1,
  IPS_TUNNEL_ERROR_TIME = 2,        /* TTL ran out inside of the tunnel */
  IPS_TUNNEL_ERROR_UNREACHABLE = 3,
};
struct ips_tunnel_error {
  uint8_t kind;                     /* enum ips_tunnel_error_kind */
  uint8_t encap;                    /* of the quoted packet: enum ips_encap */
  uint8_t family, inner_family;     /* 4 or 6; inner 0: quote too short for the inner addresses */
  uint8_t type, code;               /* of the ICMP error */
  uint16_t src_port, dst_port;      /* quoted; GUE only */
  uint16_t inner_at, inner_len;     /* the quoted inner packet: offset from p->data, bytes quoted */
  uint32_t mtu;                     /* TOO_BIG: largest inner packet that fits, overhead already taken off */
  uint8_t reporter[16];             /* who sent the error */
  uint8_t local[16], remote[16];    /* quoted source and destination of the tunnel packet */
};
int ips_tunnel_error_packet(const struct ips_pkt *p, struct ips_tunnel_error *out);
/* The ICMP error that the inner packet's sender gets for e (of packet p). source4, source6: ours; zero: none.
 * Returns its length, at most 576 (v4) or 1,280 bytes (v6); 0 where none may be sent (RFC 1122
 * 3.2.2, RFC 4443 2.4). */
size_t ips_relay_error(const struct ips_pkt *p, const struct ips_tunnel_error *e, const uint8_t *source4,
                       const uint8_t *source6, uint8_t *out, size_t room);

typedef void (*ips_packet_fn)(void *arg, struct ips_pkt *p); /* p is valid during the call only */
int ips_complete_csum(struct ips_pkt *p);
int ips_segment_packet(const struct ips_pkt *p, uint8_t *scratch, size_t scratch_bytes, uint16_t headroom,
                       ips_packet_fn emit, void *arg);
int ips_fragment4_packet(const struct ips_pkt *p, uint32_t mtu, uint8_t *scratch, size_t scratch_bytes,
                         uint16_t headroom, ips_packet_fn emit, void *arg);

struct ips_gro; /* open TCP flows of one worker, 64 kB each */
struct ips_gro *ips_gro_new(unsigned flows, uint16_t headroom);
void ips_gro_free(struct ips_gro *g);
int ips_gro_push_packet(struct ips_gro *g, struct ips_pkt *p, ips_packet_fn emit, void *arg);
void ips_gro_flush(struct ips_gro *g, ips_packet_fn emit, void *arg);

struct ips_frag_table; /* ports of fragmented datagrams, shared by all workers */
struct ips_frag_flow {
  uint16_t src_port, dst_port; /* of ICMP echo: the identifier, twice */
  uint64_t value;              /* opaque: what ips_frag_learn was given */
};
struct ips_frag_stats {
  uint32_t datagrams, held;    /* now in the table */
  uint64_t held_total, released, late, full, conflicts; /* since the start; all but `full`: fragments */
};
struct ips_frag_table *ips_frag_new(uint32_t datagrams, uint32_t held, uint32_t held_bytes, uint64_t seed);
void ips_frag_free(struct ips_frag_table *t);
int ips_frag_ports_packet(struct ips_frag_table *t, struct ips_pkt *p, uint64_t now_ns,
                          struct ips_frag_flow *flow);
int ips_frag_learn_packet(struct ips_frag_table *t, struct ips_pkt *p, uint64_t now_ns,
                          struct ips_frag_flow *flow, ips_packet_fn emit, void *arg);
uint32_t ips_frag_expire(struct ips_frag_table *t, uint64_t now_ns, uint32_t buckets);
void ips_frag_stats(const struct ips_frag_table *t, struct ips_frag_stats *out);

/* ---- benchmarks (ips_bench.c) ------------------------------------------ */

/* All in nanoseconds of this thread's processor time. */
/* `rounds` passes over n packets (packet i at packets + i * stride, lengths[i] bytes, each at most stride <=
 * 1,984), including a copy of each; w NULL: the copying alone. ahead: ips_prefetch is called so many packets
 * early, its second step half as many; 0: never. Returns 0 where memory is short, or a size out of range. */
uint64_t ips_bench_packets(struct ips_worker *w, int side, const uint8_t *packets, uint32_t stride,
                           const uint16_t *lengths, uint32_t n, uint32_t rounds, uint32_t ahead);
/* That many additions, each waiting for the one before: a processor clock each. */
uint64_t ips_bench_clock(uint32_t additions);

#endif
