/* ips_records.c: the authoritative bindings, in chunks of a page, shared where no change fell into them.
 *
 * Order is (family, global, prefix_len): a covering prefix stands before what it
 * covers, so writing bindings in order lets the longest one win. A change
 * copies the chunk that it falls into; chunks that grow too long are cut in even parts.
 */
#include "ips_gen.h"

enum { CHUNK = IPS_PAGE_BYTES / sizeof(struct ips_binding_rec) };

static int order(uint8_t family, ips_u128 address, unsigned prefix_len, const struct ips_binding_rec *b) {
  if (family != b->family) return family < b->family ? -1 : 1;
  ips_u128 other = ips_global_of(b);
  if (address != other) return address < other ? -1 : 1;
  return (int)prefix_len - (int)b->prefix_len;
}

int ips_record_order(const struct ips_binding_rec *a, const struct ips_binding_rec *b) {
  return order(a->family, ips_global_of(a), a->prefix_len, b);
}

static bool append(struct ips_mem *m, struct ips_records *r, const struct ips_binding_rec *recs, uint32_t n) {
  uint32_t pieces = (n + CHUNK - 1) / CHUNK;
  for (uint32_t i = 0; i < pieces; i++) {
    uint32_t first = (uint32_t)((uint64_t)n * i / pieces), end = (uint32_t)((uint64_t)n * (i + 1) / pieces);
    struct ips_binding_rec *page = ips_page_new(m, NULL);
    if (!page) return false;
    memcpy(page, recs + first, (end - first) * sizeof *recs);
    r->chunks[r->n_chunks++] = (struct ips_chunk){page, end - first};
  }
  r->count += n;
  return true;
}

void ips_records_drop(struct ips_mem *m, struct ips_records *r) {
  for (uint32_t i = 0; i < r->n_chunks; i++) ips_page_drop(m, r->chunks[i].at);
  ips_release(m, r->chunks);
  *r = (struct ips_records){0};
}

bool ips_records_copy(struct ips_mem *m, struct ips_records *out, const struct ips_binding_rec *recs,
                      uint32_t n) {
  struct ips_records r = {.chunks = ips_alloc(m, ((size_t)n / CHUNK + 1) * sizeof *r.chunks)};
  if (r.chunks && append(m, &r, recs, n)) {
    *out = r;
    return true;
  }
  ips_records_drop(m, &r);
  return false;
}

static const struct ips_binding_rec *place_of(const struct ips_change *c) { return c->now ? c->now : c->old; }

/* One chunk (or nothing) and the changes that fall into it, to scratch. */
static uint32_t merge_chunk(struct ips_binding_rec *scratch, const struct ips_binding_rec *recs, uint32_t n,
                            const struct ips_change *changes, uint32_t n_changes) {
  uint32_t out = 0, i = 0, j = 0;
  while (i < n || j < n_changes) {
    int o = i == n ? 1 : j == n_changes ? -1 : ips_record_order(recs + i, place_of(changes + j));
    if (o < 0) {
      scratch[out++] = recs[i++];
      continue;
    }
    if (changes[j].now) scratch[out++] = *changes[j].now;
    if (o == 0) i++;
    j++;
  }
  return out;
}

static uint32_t changes_before(const struct ips_change *changes, uint32_t n,
                               const struct ips_binding_rec *end) {
  uint32_t lo = 0, hi = n;
  while (end && lo < hi) {
    uint32_t mid = (lo + hi) / 2;
    if (ips_record_order(place_of(changes + mid), end) < 0) lo = mid + 1; else hi = mid;
  }
  return end ? lo : n;
}

/* After many removals chunks may hold a record each: copy them together. */
static bool tighten(struct ips_mem *m, struct ips_records *r) {
  if (r->n_chunks < 8 || r->count > (uint64_t)r->n_chunks * CHUNK / 4) return true;
  struct ips_binding_rec *all = ips_alloc(m, r->count * sizeof *all + 1);
  if (!all) return false;
  uint32_t n = 0;
  for (uint32_t i = 0; i < r->n_chunks; i++) {
    memcpy(all + n, r->chunks[i].at, r->chunks[i].n * sizeof *all);
    n += r->chunks[i].n;
  }
  struct ips_records loose = *r;
  bool done = ips_records_copy(m, r, all, n);
  if (done) ips_records_drop(m, &loose);
  ips_release(m, all);
  return done;
}

bool ips_records_merge(struct ips_mem *m, struct ips_records *out, const struct ips_records *base,
                       const struct ips_change *changes, uint32_t n) {
  size_t room = base->n_chunks + 2 * (size_t)n / CHUNK + 2 + (n < base->n_chunks ? n : base->n_chunks);
  struct ips_records r = {.chunks = ips_alloc(m, room * sizeof *r.chunks)};
  struct ips_binding_rec *scratch = ips_alloc(m, ((size_t)n + CHUNK) * sizeof *scratch);
  bool done = r.chunks && scratch;
  uint32_t chunk = 0;
  for (uint32_t at = 0; done && (chunk < base->n_chunks || at < n); chunk++) {
    const struct ips_binding_rec *end = chunk + 1 < base->n_chunks ? base->chunks[chunk + 1].at : NULL;
    uint32_t here = changes_before(changes + at, n - at, end);
    struct ips_chunk old = chunk < base->n_chunks ? base->chunks[chunk] : (struct ips_chunk){0};
    if (here == 0) {
      r.chunks[r.n_chunks++] = (struct ips_chunk){ips_page_ref(old.at), old.n};
      r.count += old.n;
    } else {
      done = append(m, &r, scratch, merge_chunk(scratch, old.at, old.n, changes + at, here));
    }
    at += here;
  }
  ips_release(m, scratch);
  done = done && tighten(m, &r);
  if (done) *out = r;
  else ips_records_drop(m, &r);
  return done;
}

struct ips_position ips_records_seek(const struct ips_records *r, uint8_t family, ips_u128 address,
                                     unsigned prefix_len) {
  uint32_t lo = 0, hi = r->n_chunks; /* the last chunk that begins before or at the key, */
  while (hi - lo > 1) {
    uint32_t mid = (lo + hi) / 2;
    if (order(family, address, prefix_len, r->chunks[mid].at) >= 0) lo = mid; else hi = mid;
  }
  if (r->n_chunks == 0) return (struct ips_position){0, 0};
  const struct ips_chunk *c = r->chunks + lo;
  uint32_t first = 0, end = c->n; /* and in it the first record not before the key */
  while (first < end) {
    uint32_t mid = (first + end) / 2;
    if (order(family, address, prefix_len, c->at + mid) > 0) first = mid + 1; else end = mid;
  }
  return first == c->n ? (struct ips_position){lo + 1, 0} : (struct ips_position){lo, first};
}

const struct ips_binding_rec *ips_records_find(const struct ips_records *r,
                                               const struct ips_binding_rec *same) {
  struct ips_position p = ips_records_seek(r, same->family, ips_global_of(same), same->prefix_len);
  const struct ips_binding_rec *b = ips_records_next(r, &p);
  return b && ips_record_order(b, same) == 0 ? b : NULL;
}

/* The last record at or before the key. */
static const struct ips_binding_rec *before(const struct ips_records *r, uint8_t family, ips_u128 address,
                                            unsigned prefix_len) {
  struct ips_position p = ips_records_seek(r, family, address, prefix_len), q = p;
  const struct ips_binding_rec *b = ips_records_next(r, &q);
  if (b && order(family, address, prefix_len, b) == 0) return b;
  if (p.at == 0) {
    if (p.chunk == 0) return NULL;
    p.chunk--, p.at = r->chunks[p.chunk].n;
  }
  return r->chunks[p.chunk].at + p.at - 1;
}

static unsigned common_bits(ips_u128 a, ips_u128 b) {
  ips_u128 x = a ^ b;
  if (ips_hi(x)) return (unsigned)__builtin_clzll(ips_hi(x));
  return ips_lo(x) ? 64 + (unsigned)__builtin_clzll(ips_lo(x)) : 128;
}

/* The record before the key covers it, or shares with every one that does at least that one's
 * length; so each step leaves fewer bits, and covering records are never passed over. */
const struct ips_binding_rec *ips_records_cover(const struct ips_records *r, uint8_t family, ips_u128 address,
                                                unsigned max_len) {
  for (unsigned len = max_len; len > 0;) {
    ips_u128 key = address & ips_mask(len);
    const struct ips_binding_rec *b = before(r, family, key, len);
    if (!b || b->family != family) return NULL;
    if (b->prefix_len <= len && (address & ips_mask(b->prefix_len)) == ips_global_of(b)) return b;
    unsigned common = common_bits(ips_global_of(b), key);
    len = common < len ? common : len - 1;
  }
  return NULL;
}
