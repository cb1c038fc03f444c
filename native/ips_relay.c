/* ips_relay.c: a mirror in the role of a standby whose table is a queue.
 *
 * The queue has room for everything that one datagram can set free: the window of those held behind it.
 */
#include "ips_mirror.h"
#include "ips_relay_api.h"
#include <stdlib.h>
#include <sys/random.h>

/* A record is at least this long on the wire; marks are rarer than records. */
enum { LEAST_RECORD = 20, PER_DATAGRAM = IPS_MIRROR_PLAIN / LEAST_RECORD, OUT = 8, LARGEST_WINDOW = 1 << 12 };

struct ips_relay {
  struct ips_mirror *mirror;
  struct ips_seal *seal;
  struct ips_relay_change *queue;
  uint64_t head, tail, size;    /* of the queue; size: what one datagram can bring */
  uint8_t out[OUT][IPS_SEAL_DATAGRAM];
  size_t out_len[OUT];
  uint32_t n_out, at_out;
  bool ticked;                  /* since the last input or take */
};

static void put(struct ips_relay *r, uint32_t what, const struct ips_session_rec *rec, bool is_new_origin) {
  struct ips_relay_change *c = &r->queue[r->head++ % r->size];
  *c = (struct ips_relay_change){.epoch = r->mirror->epoch, .what = what, .is_new_origin = is_new_origin};
  if (rec) c->rec = *rec;
}

static int apply(void *arg, int op, const struct ips_session_rec *rec) {
  struct ips_relay *r = arg;
  if (r->head - r->tail >= r->size) return -1;
  put(r, (uint32_t)op, rec, false);
  return 0;
}

/* Shards are never asked for: digests are off, since nothing here could be compared. */
static void begin(void *arg, int shard, bool is_new_origin) {
  if (shard < 0) put(arg, IPS_RELAY_BEGIN, NULL, is_new_origin);
}
static void end(void *arg, int shard, bool is_complete) {
  if (shard < 0) put(arg, is_complete ? IPS_RELAY_END : IPS_RELAY_BROKEN, NULL, false);
}
static int digest(void *arg, bool begins, uint64_t *sums) {
  (void)arg, (void)begins, (void)sums;
  return -1; /* there is no table here to be compared */
}
static size_t scan(void *arg, uint64_t *cursor, struct ips_session_rec *out, size_t room) {
  (void)arg, (void)out, (void)room;
  *cursor = UINT64_MAX;
  return 0;
}

static void random_octets(void *arg, uint8_t *out, size_t n) {
  (void)arg;
  while (n) {
    ssize_t got = getrandom(out, n, 0);
    if (got > 0) out += got, n -= (size_t)got;
  }
}

struct ips_relay *ips_relay_new(const struct ips_relay_config *c) {
  if (c->window < 2 || c->window > LARGEST_WINDOW) return NULL;
  struct ips_relay *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  /* One slot more for each datagram: its records and marks; a broken and a new snapshot besides. */
  r->size = (uint64_t)(c->window + 1) * PER_DATAGRAM + 4;
  r->queue = calloc(r->size, sizeof *r->queue);
  r->seal = ips_seal_new(&c->seal, random_octets, NULL);
  if (r->seal && r->queue) {
    struct ips_mirror_config m = {
      .workers = 1, .ring = 4, .window = c->window, .tombstones = c->tombstones, .burst = 1, .scan = 1,
      .n_peers = 1, .rto_ns = 10000000, .idle_ns = 100000000, .backoff_ns = 100000000,
      .seals = {r->seal}, .source = {r, scan},
      .sink = {.arg = r, .apply = apply, .begin_snapshot = begin, .end_snapshot = end, .digest = digest}};
    r->mirror = ips_mirror_new(&m);
  }
  if (r->mirror) return r;
  ips_relay_free(r);
  return NULL;
}

void ips_relay_free(struct ips_relay *r) {
  if (!r) return;
  ips_mirror_free(r->mirror);
  ips_seal_free(r->seal);
  free(r->queue);
  free(r);
}

int ips_relay_input(struct ips_relay *r, const uint8_t *bytes, size_t len, uint64_t now_ns) {
  if (r->head != r->tail) return -1;
  r->ticked = false;
  return ips_mirror_input(r->mirror, 0, bytes, len, now_ns);
}

size_t ips_relay_take(struct ips_relay *r, struct ips_relay_change *out, size_t room) {
  size_t n = 0;
  while (n < room && r->tail != r->head) out[n++] = r->queue[r->tail++ % r->size];
  return n;
}

static void keep(void *arg, uint32_t peer, const uint8_t *bytes, size_t len) {
  struct ips_relay *r = arg;
  (void)peer;
  if (r->n_out == OUT) return; /* as lost on the way: said again */
  memcpy(r->out[r->n_out], bytes, len);
  r->out_len[r->n_out++] = len;
}

size_t ips_relay_emit(struct ips_relay *r, uint64_t now_ns, uint8_t *out) {
  if (r->tail != r->head) return 0;
  if (r->at_out == r->n_out) {
    r->at_out = r->n_out = 0;
    if (!r->ticked) ips_mirror_tick(r->mirror, now_ns, keep, r);
    r->ticked = r->n_out != 0; /* the call that finds nothing left allows the next tick */
  }
  if (r->at_out == r->n_out) {
    r->ticked = false;
    return 0;
  }
  size_t n = r->out_len[r->at_out];
  memcpy(out, r->out[r->at_out++], n);
  return n;
}

static struct ips_mirror_peer_stats peer(const struct ips_relay *r, uint64_t now_ns) {
  struct ips_mirror_stats s;
  ips_mirror_stats(r->mirror, now_ns, &s);
  return s.peers[0];
}

bool ips_relay_is_fed(const struct ips_relay *r, uint64_t now_ns) {
  struct ips_seal_info info;
  ips_seal_info(r->seal, now_ns, &info);
  return info.alive && peer(r, now_ns).feeds_us;
}

bool ips_relay_is_complete(const struct ips_relay *r, uint64_t now_ns) {
  return ips_relay_is_fed(r, now_ns) && peer(r, now_ns).is_complete;
}
