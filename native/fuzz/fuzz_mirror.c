/* fuzz_mirror.c: a standby and an active node, fed behind the seal and before it.
 *
 * Input: steps of one octet, a length (two octets, little-endian) and that many octets. The first octet
 * modulo 8: 0 a message to the standby; 1 one to the active node; 2 entries that get a right head, for the
 * standby; 3 a raw datagram to both; 4 a tick of both, what they send arrives; 5 a change, if the octets
 * are a record; 6 a true datagram with octets xored into it; 7 a new stream, by a refusal. Claims: the
 * table is told only whole records and matching snapshots, nothing forged is opened, and in the end both
 * are equal.
 */
#include "../tests/mirror_pair.h"
#include "ips_seal.h"

enum { ROOM = 64, STEPS = 200 };

struct table { struct ips_session_rec s[ROOM]; bool confirmed[ROOM]; uint32_t n, open; };
static struct pair p;

static int find(const struct table *t, const struct ips_flow *f) {
  for (uint32_t i = 0; i < t->n; i++)
    if (memcmp(&t->s[i].flow, f, sizeof *f) == 0) return (int)i;
  return -1;
}

static void check_record(int op, const struct ips_session_rec *r) {
  uint8_t wire[IPS_MIRROR_RECORD];
  struct ips_session_rec back;
  int what;
  size_t n = ips_mirror_put(wire, op, r);
  CHECK(n <= sizeof wire && ips_mirror_get(wire, n, &what, &back) == n && what == op);
  CHECK(memcmp(&back, r, sizeof back) == 0);
}

static size_t scan(void *arg, uint64_t *cursor, struct ips_session_rec *out, size_t room) {
  struct table *t = arg;
  size_t n = 0;
  for (; *cursor < t->n && n < room; ++*cursor) out[n++] = t->s[*cursor];
  if (*cursor >= t->n) *cursor = UINT64_MAX;
  return n;
}

static void drop(struct table *t, int i) {
  t->s[i] = t->s[--t->n];
  t->confirmed[i] = t->confirmed[t->n];
}

static int apply(void *arg, int op, const struct ips_session_rec *r) {
  struct table *t = arg;
  check_record(op, r);
  int i = find(t, &r->flow);
  if (i >= 0) t->confirmed[i] = true;
  if (i >= 0 && t->s[i].version >= r->version) return 0;
  if (op == IPS_SESSION_DELETE) {
    if (i >= 0) drop(t, i);
    return 0;
  }
  if (i < 0 && t->n == ROOM) return -1;
  if (i < 0) i = (int)t->n++;
  t->s[i] = *r;
  t->confirmed[i] = true;
  return 0;
}

static void begin_snapshot(void *arg, int shard, bool is_new_origin) {
  struct table *t = arg;
  if (shard == -1) CHECK(t->open++ == 0);
  for (uint32_t i = 0; i < t->n; i++) {
    if (shard == -1 || shard == ips_mirror_shard(&t->s[i].flow)) t->confirmed[i] = false;
    if (is_new_origin) t->s[i].version = 0;
  }
}

static void end_snapshot(void *arg, int shard, bool is_complete) {
  struct table *t = arg;
  if (shard == -1) CHECK(t->open-- == 1);
  for (int i = (int)t->n; is_complete && i-- > 0;)
    if (!t->confirmed[i] && (shard == -1 || shard == ips_mirror_shard(&t->s[i].flow))) drop(t, i);
}

static uint64_t begun[IPS_MIRROR_SHARDS];

/* Counted at once, told after some calls. */
static int digest(void *arg, bool begins, uint64_t *sums) {
  static unsigned calls;
  struct table *t = arg;
  if (!begins) {
    memcpy(sums, begun, sizeof begun);
    return ++calls % 3 == 0;
  }
  memset(sums, 0, IPS_MIRROR_SHARDS * sizeof *sums);
  for (uint32_t i = 0; i < t->n; i++) sums[ips_mirror_shard(&t->s[i].flow)] += ips_mirror_digest(&t->s[i]);
  memcpy(begun, sums, sizeof begun);
  return (int)(t->n % 3) - 1;
}

static struct table tables[2];

/* What the active node's own table does; a change is newer than whatever was there. */
static void change(const uint8_t *bytes, size_t n) {
  static uint64_t version;
  struct ips_session_rec r;
  int op;
  if (!ips_mirror_get(bytes, n, &op, &r)) return;
  check_record(op, &r);
  int i = find(&tables[0], &r.flow);
  if (i < 0 && (op == IPS_SESSION_DELETE || tables[0].n == ROOM)) return;
  r.version = (1ull << 63) + ++version;
  if (op == IPS_SESSION_DELETE) drop(&tables[0], i);
  else if (i < 0) tables[0].s[tables[0].n++] = r;
  else tables[0].s[i] = r;
  ips_mirror_push(p.node[0].m, version % 2, op, &r);
}

static void entries(const uint8_t *bytes, size_t n) {
  uint8_t d[IPS_MIRROR_PLAIN] = {IPS_MSG_DATA};
  const struct ips_mirror_rx *rx = &p.node[1].m->peers[0].rx;
  if (n > sizeof d - IPS_MIRROR_HEAD) n = sizeof d - IPS_MIRROR_HEAD;
  ips_put64(d + 2, p.node[1].m->epoch);
  ips_put32(d + 10, rx->stream);
  ips_put64(d + 14, rx->next + (n ? bytes[0] % 3 : 0));
  memcpy(d + IPS_MIRROR_HEAD, bytes, n);
  ips_mirror_message(p.node[1].m, 0, d, IPS_MIRROR_HEAD + n, p.now);
}

static void raw(const uint8_t *bytes, size_t n) {
  for (unsigned i = 0; i < 2; i++) {
    int result = ips_mirror_input(p.node[i].m, 0, bytes, n, p.now);
    CHECK(result != IPS_SEAL_OK_ && result != IPS_SEAL_OPENED_ && result != IPS_SEAL_KEEPALIVE_);
  }
}

static void damaged(const uint8_t *bytes, size_t n) {
  struct pair_datagram d;
  bool changed = false;
  p.now += 1000000;
  p.from = 0;
  ips_mirror_tick(p.node[0].m, p.now, pair_emit, &p);
  if (!p.queued) return;
  d = p.queue[--p.queued];
  for (size_t i = 0; i + 1 < n; i += 2) {
    d.bytes[(bytes[i] * 5u) % d.len] ^= bytes[i + 1];
    changed |= bytes[i + 1] != 0;
  }
  if (changed && memcmp(d.bytes, p.queue[p.queued].bytes, d.len) != 0)
    CHECK(ips_mirror_input(p.node[1].m, 0, d.bytes, d.len, p.now) != IPS_SEAL_OK_);
}

static void refusal(void) {
  uint8_t d[IPS_MIRROR_ACK] = {IPS_MSG_ACK, IPS_ACK_REFUSED, IPS_REFUSED_APPLY};
  ips_put32(d + 4, p.node[0].m->peers[0].tx.stream);
  ips_mirror_message(p.node[0].m, 0, d, sizeof d, p.now);
}

static void step(unsigned what, const uint8_t *bytes, size_t n) {
  switch (what % 8) {
    case 0: ips_mirror_message(p.node[1].m, 0, bytes, n, p.now); break;
    case 1: ips_mirror_message(p.node[0].m, 0, bytes, n, p.now); break;
    case 2: entries(bytes, n); break;
    case 3: raw(bytes, n); break;
    case 4: pair_step(&p, 0); break;
    case 5: change(bytes, n); break;
    case 6: damaged(bytes, n); break;
    default: refusal();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  void *args[2] = {&tables[0], &tables[1]};
  struct ips_mirror_config c = {.workers = 2, .ring = 16, .window = 4, .tombstones = 16, .burst = 8,
                                .scan = 64, .rto_ns = 5000000, .idle_ns = 5000000, .backoff_ns = 1000000,
                                .digest_ns = 9000000,
                                .source = {.scan = scan},
                                .sink = {.apply = apply, .begin_snapshot = begin_snapshot,
                                         .end_snapshot = end_snapshot, .digest = digest}};
  memset(tables, 0, sizeof tables);
  pair_new(&p, c, args);
  for (unsigned i = 0; i < 8; i++) pair_step(&p, 0);
  for (unsigned i = 0; i < STEPS && size >= 3; i++) {
    size_t n = data[1] | (size_t)data[2] << 8;
    if (n > size - 3) n = size - 3;
    step(data[0], data + 3, n);
    data += 3 + n, size -= 3 + n;
  }
  /* Whatever a peer with a fault did: a new epoch gets everything right again. */
  struct ips_mirror *active = p.node[0].m;
  uint64_t known = p.node[1].m->epoch > active->epoch ? p.node[1].m->epoch : active->epoch;
  if (known < UINT64_MAX) {
    ips_mirror_set_role(p.node[1].m, false, known);
    CHECK(ips_mirror_set_role(active, true, known + 1));
    for (unsigned i = 0; i < 3000 && !pair_ready(&p); i++) pair_step(&p, 0);
    CHECK(pair_ready(&p) && tables[0].n == tables[1].n);
    for (uint32_t i = 0; i < tables[0].n; i++) {
      int at = find(&tables[1], &tables[0].s[i].flow);
      CHECK(at >= 0 && memcmp(&tables[0].s[i], &tables[1].s[at], sizeof tables[0].s[i]) == 0);
    }
  }
  pair_free(&p);
  return 0;
}
