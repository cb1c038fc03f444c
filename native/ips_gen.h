/* ips_gen.h: what the control thread keeps of a generation, and the parts that build one.
 *
 * prepare: ips_image.c reads and judges an image -> ips_records.c merges its bindings
 * into the authoritative, sorted, chunked array -> ips_build.c makes the indices
 * (ips_net4.c, ips_global6.c, ips_local.c over ips_hash.c and ips_dense.c; ips_maglev.c; ips_cells.c),
 * patching the live generation's where few bindings changed. commit, rollback and
 * reclaim (ips_reclaim.c) only move pointers. Whatever fails leaves the live
 * generation as it was; nothing here runs in a worker.
 */
#ifndef IPS_GEN_H
#define IPS_GEN_H
#include "ips_maglev.h"
#include "ips_mem.h"
#include "ips_table.h"

enum ips_section {
  IPS_IN_HEADER, IPS_IN_NETWORK, IPS_IN_ENDPOINT, IPS_IN_POLICY, IPS_IN_MEMBER, IPS_IN_BINDING,
  IPS_IN_PEER,
};

/* ---- ips_image.c: an image whose bytes were checked ---- */

struct ips_image {
  struct ips_image_header header;
  void *copy; /* of an image that was not aligned for its records */
  const uint8_t *sections; /* networks .. peers, then bindings */
  size_t section_bytes;    /* without the bindings */
  const struct ips_network_rec *networks;
  const struct ips_endpoint_rec *endpoints;
  const struct ips_policy_rec *policies;
  const struct ips_member_rec *members;
  const struct ips_peer_rec *peers;
  const struct ips_binding_rec *bindings;
};
/* Size, magic, version, digest, (term, revision) >= fence, base. False: *st says why. */
bool ips_image_open(struct ips_mem *m, const void *bytes, size_t n, struct ips_image *image,
                    struct ips_load_status *st);
void ips_image_close(struct ips_mem *m, struct ips_image *image);
/* Everything that an end point, policy or member record can be judged by without the bindings. */
bool ips_image_check(struct ips_mem *m, const struct ips_image *image, struct ips_load_status *st);

static inline bool ips_refuse(struct ips_load_status *st, enum ips_load_error error, enum ips_section section,
                              uint32_t index) {
  *st = (struct ips_load_status){.error = (int)error, .section = (uint32_t)section, .index = index};
  return false;
}

/* No local prefix: everything goes there, or comes from there, encapsulated (S1.6). */
static inline bool ips_has_local(const struct ips_endpoint_rec *e) { return e->prefix_len != 0; }

/* ---- ips_records.c: the bindings, ascending by (family, global, prefix_len) ---- */

struct ips_chunk { struct ips_binding_rec *at; uint32_t n; };
struct ips_records { struct ips_chunk *chunks; uint32_t n_chunks, count; };
struct ips_position { uint32_t chunk, at; };
struct ips_change { const struct ips_binding_rec *old, *now; }; /* NULL: was not there, is removed */

/* < 0, 0 (same prefix), > 0 */
int ips_record_order(const struct ips_binding_rec *a, const struct ips_binding_rec *b);
static inline ips_u128 ips_global_of(const struct ips_binding_rec *b) { return ips_ld_address(6, b->global); }
/* Copies n records. False: no memory, *out untouched. */
bool ips_records_copy(struct ips_mem *m, struct ips_records *out, const struct ips_binding_rec *recs,
                      uint32_t n);
/* base with the changes applied; chunks without a change are shared. */
bool ips_records_merge(struct ips_mem *m, struct ips_records *out, const struct ips_records *base,
                       const struct ips_change *changes, uint32_t n);
void ips_records_drop(struct ips_mem *m, struct ips_records *r);
const struct ips_binding_rec *ips_records_find(const struct ips_records *r,
                                               const struct ips_binding_rec *same_prefix);
/* The longest binding that covers `address` with at most max_len bits. */
const struct ips_binding_rec *ips_records_cover(const struct ips_records *r, uint8_t family, ips_u128 address,
                                                unsigned max_len);
/* First record not before (family, address, prefix_len); then one after the other; NULL at the end. */
struct ips_position ips_records_seek(const struct ips_records *r, uint8_t family, ips_u128 address,
                                     unsigned prefix_len);
static inline const struct ips_binding_rec *ips_records_next(const struct ips_records *r,
                                                             struct ips_position *p) {
  if (p->chunk >= r->n_chunks) return NULL;
  const struct ips_binding_rec *b = r->chunks[p->chunk].at + p->at++;
  if (p->at == r->chunks[p->chunk].n) *p = (struct ips_position){p->chunk + 1, 0};
  return b;
}

/* ---- ips_cells.c: numbers of counter cells ---- */

struct ips_cells {
  uint64_t *used;        /* one bit for each cell below `top` */
  uint32_t top, words;   /* cells ever given out; size of `used` */
  uint32_t free, cursor; /* free cells below top; none of them is below cursor, unless it was freed since */
  uint32_t sweep_at;     /* look for unused cells when top gets here */
  struct ips_cell_range *fresh; /* given out again since the last prepare began */
  uint32_t n_fresh, room_fresh;
};
enum { IPS_CELLS_MAX = 1 << 28 };
#define IPS_CELLS_EXHAUSTED (IPS_NONE - 1)
/* `n` neighbours. IPS_NONE: no memory; IPS_CELLS_EXHAUSTED: there are no more numbers. */
uint32_t ips_cells_take(struct ips_mem *m, struct ips_cells *c, uint32_t n);
/* A sweep: begin, keep whatever can still be reached, end; the rest is free then. Due when `top` got to
 * `sweep_at`, which ips_cells_sweep_later sets from how many are in use. */
void ips_cells_sweep_begin(struct ips_cells *c);
void ips_cells_sweep_keep(struct ips_cells *c, uint32_t first, uint32_t n);
void ips_cells_sweep_end(struct ips_cells *c);
void ips_cells_sweep_later(struct ips_cells *c, uint32_t in_use);

/* ---- ips_hash.c: pages of a hash, copied when written ---- */

bool ips_lpm_copy(struct ips_mem *m, struct ips_lpm *out, const struct ips_lpm *from); /* from NULL: empty */
void ips_lpm_drop(struct ips_mem *m, struct ips_lpm *s);
struct ips_hash *ips_lpm_table(const struct ips_lpm *s, unsigned prefix_len); /* NULL: none of that length */
/* Table of that length, made (for `expected` keys) if there is none. NULL: no memory. */
struct ips_hash *ips_lpm_add(struct ips_mem *m, struct ips_lpm *s, unsigned prefix_len, uint32_t expected);
void ips_lpm_trim(struct ips_mem *m, struct ips_lpm *s); /* drops empty tables */
/* The value of a key, to be written; a new one has kind 0 and must get another. NULL: no memory. */
struct ips_value *ips_hash_put(struct ips_mem *m, struct ips_hash *t, ips_u128 key);
/* Asks for the lines that ips_hash_put will touch. */
void ips_hash_expect(const struct ips_hash *t, ips_u128 key);
/* An absent key is fine. False: no memory. */
bool ips_hash_remove(struct ips_mem *m, struct ips_hash *t, ips_u128 key);

/* ---- ips_dense.c: slots that repeat what a hash of whole IPv6 addresses says ---- */

bool ips_dense_copy(struct ips_mem *m, struct ips_dense *out, const struct ips_dense *from);
void ips_dense_drop(struct ips_mem *m, struct ips_dense *d);
/* What the hash says of `key` has changed (ips_hash_remove calls it itself). False: no memory. */
bool ips_dense_mend(struct ips_mem *m, struct ips_hash *t, ips_u128 key);
/* At the end of all changes: chooses anew which groups have slots, if that is due. False: no memory. */
bool ips_dense_settle(struct ips_mem *m, struct ips_lpm *s);

/* ---- a generation ---- */

struct ips_content { /* may belong to two generations: a rollback publishes old content under a new number */
  struct ips_root root;   /* as published, but for generation, term and revision */
  uint32_t refs;
  uint8_t *sections;      /* networks .. peers of the image, as they came */
  size_t section_bytes;
  struct ips_records records;
  struct ips_maglev **maglev; /* of each policy two: now, and before (may be NULL) */
  uint8_t *scope;         /* of each end point: enum ips_scope */
  uint32_t lengths4[33];  /* IPv4 bindings by prefix length */
  bool nested;            /* some claims in local tables lie within others: see ips_local.c */
  bool digested;
  uint64_t digest;
};
enum ips_scope { IPS_NOT_MAPPED, IPS_MAPPED, IPS_MAPPED_SOFT };

static inline const struct ips_network_rec *ips_networks(const struct ips_content *c) {
  return (const void *)c->sections;
}
static inline const struct ips_policy_rec *ips_policies(const struct ips_content *c) {
  const struct ips_image_header *h = &c->root.header;
  return (const void *)(c->sections + h->n_networks * sizeof(struct ips_network_rec) +
                        h->n_endpoints * sizeof(struct ips_endpoint_rec));
}
static inline const struct ips_member_rec *ips_members(const struct ips_content *c) {
  return (const void *)(ips_policies(c) + c->root.header.n_policies);
}

struct ips_gen {
  struct ips_root root; /* what workers see */
  struct ips_content *content;
  struct ips_gen *next; /* in the list of those that workers may still see */
  uint64_t seen[];      /* loop counters when it was replaced */
};
struct ips_control {
  struct ips_mem mem;
  struct ips_gen *live, *previous, *prepared, *retired;
  struct ips_cells cells;
  uint64_t last_generation;      /* numbers are never used twice */
  uint64_t term, revision;       /* highest ever committed: images below are refused */
};

/* ---- building ---- */

/* Where a build stands; every part returns false after saying why in *st. */
struct ips_build {
  struct ips_mem *mem;
  struct ips_cells *cells;
  const struct ips_image *image;
  const struct ips_content *base; /* live content, or NULL */
  struct ips_content *out;
  struct ips_change *changes;     /* against base; only if `patch` */
  uint32_t n_changes;
  bool patch;                     /* few bindings changed: indices are copied and mended, not made anew */
  struct ips_load_status *st;
};
/* NULL: *st says why. The image's header was judged before (ips_image.c, check_fence). */
struct ips_content *ips_build(struct ips_mem *m, struct ips_cells *cells, const struct ips_image *image,
                              const struct ips_content *base, struct ips_load_status *st);
void ips_content_drop(struct ips_mem *m, struct ips_content *c);
uint64_t ips_content_digest(struct ips_content *c); /* of its complete image; computed once */
static inline bool ips_no_memory(struct ips_build *b) {
  return ips_refuse(b->st, IPS_LOAD_NO_MEMORY, IPS_IN_HEADER, 0);
}
/* Index in the image of the binding with this prefix; IPS_NONE: it came from the base generation. */
uint32_t ips_build_index(const struct ips_build *b, const struct ips_binding_rec *rec);

bool ips_build_networks(struct ips_build *b);  /* ips_net4.c: networks, sorted; judged */
bool ips_build_slots(struct ips_build *b);     /* ips_net4.c: IPv4 global -> local */
bool ips_build_global6(struct ips_build *b);   /* ips_global6.c */
bool ips_build_local(struct ips_build *b);     /* ips_local.c */
bool ips_build_overlaps(struct ips_build *b);  /* ips_overlap.c: do two bindings claim one local address? */
bool ips_build_policies(struct ips_build *b);  /* ips_parts.c: Maglev tables, shared where nothing changed */
bool ips_build_tunnels(struct ips_build *b);   /* ips_parts.c */
bool ips_build_homes(struct ips_build *b);     /* ips_parts.c: scopes and local prefixes */
bool ips_build_peers(struct ips_build *b);     /* ips_peers.c: members of groups; judged */
void ips_drop_slots(struct ips_mem *m, struct ips_root *r);
bool ips_check_bindings(struct ips_build *b);  /* ips_binding.c: those of the image */
bool ips_check_kept(struct ips_build *b);      /* of a delta: those of the base, where their ground changed */
ips_slot ips_slot_of(const struct ips_binding_rec *b); /* of its first address */

/* The end points whose local prefixes a binding takes up, of those that this node maps back. */
struct ips_claims { const struct ips_member_rec *members; uint32_t n, at, single; };
struct ips_claims ips_claims_of(const struct ips_content *c, const struct ips_binding_rec *b);
/* False at the end; else the end point and the first local address there. */
bool ips_claims_next(const struct ips_content *c, const struct ips_binding_rec *b, struct ips_claims *i,
                     uint32_t *endpoint, ips_u128 *local);

/* ips_reclaim.c */
void ips_retire(struct ips_tables *t, struct ips_gen *g);    /* neither live nor needed: free it in time */
struct ips_mem *ips_tables_mem(struct ips_tables *t);        /* for tests of refused memory */
struct ips_shared *ips_shared_new(void);                     /* ips_shared.c; NULL: no memory */
void ips_shared_free(struct ips_shared *s);
void ips_gen_free(struct ips_control *c, struct ips_gen *g); /* at once: no worker ever saw it */
#endif
