/* ips_worker.c: life of a worker, its counters and the ICMP errors it may send. */
#include "ips_lane.h"
#include <stdlib.h>

enum { GRO_FLOWS = 8 };

struct ips_worker *ips_worker_new(struct ips_tables *t, uint32_t index, ips_emit_fn emit, void *arg) {
  struct ips_worker *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  *w = (struct ips_worker){.tables = t, .shared = ips_tables_shared(t), .index = index, .emit = emit, .arg = arg,
                           .coalesces = true, .lane_generation = UINT64_MAX};
  w->counters = &w->own;
  w->gro = ips_gro_new(GRO_FLOWS, IPS_HEADROOM);
  w->scratch = malloc(IPS_SCRATCH_BYTES);
  w->train = malloc(IPS_SCRATCH_BYTES);
  w->opened = malloc(IPS_SCRATCH_BYTES);
  w->error = malloc(IPS_ERROR_BYTES);
  if (w->gro && w->scratch && w->train && w->opened && w->error) return w;
  ips_worker_free(w);
  return NULL;
}

void ips_worker_free(struct ips_worker *w) {
  if (!w) return;
  ips_gro_free(w->gro);
  free(w->scratch);
  free(w->train);
  free(w->opened);
  free(w->error);
  free(w);
}

void ips_worker_set_counters(struct ips_worker *w, struct ips_counters *c, struct ips_cell *cells, uint32_t n_cells) {
  w->counters = c ? c : &w->own;
  w->cells = cells;
  w->n_cells = cells ? n_cells : 0;
}

void ips_worker_set_trains(struct ips_worker *w, int makes_trains) { w->makes_trains = makes_trains; }
void ips_worker_set_coalescing(struct ips_worker *w, int coalesces) { w->coalesces = coalesces; }

/* Are there addresses from first to last (their first bytes) that only the whole way may judge? */
static bool is_odd(uint64_t first, uint64_t last, unsigned family) {
  for (uint64_t byte = first; byte <= last; byte++)
    if (family == 4 ? ips_lane_odd4((uint32_t)byte) : ips_lane_odd6((uint32_t)byte)) return true;
  return false;
}

static bool has_odd(const struct ips_prefixes *s, unsigned family) {
  for (uint32_t i = 0; i < s->n; i++)
    if (is_odd(s->at[i].hi >> 56, (s->at[i].hi | ~s->at[i].mask_hi) >> 56, family)) return true;
  return false;
}

/* Where no destination of a generation needs to be judged, the lane does not look at any. */
static bool is_ordinary(const struct ips_root *r) {
  for (uint32_t i = 0; i < r->first4[256]; i++)
    if (is_odd(r->net4[i].base >> 24, (r->net4[i].base | ~r->net4[i].mask) >> 24, 4)) return false;
  return !has_odd(&r->net6, 6) && !has_odd(&r->home4, 4) && !has_odd(&r->home6, 6);
}

static void refresh_lane(struct ips_worker *w) {
  uint64_t generation = w->root ? w->root->generation : 0;
  uint32_t learned = atomic_load_explicit(&w->shared->paths.learned, memory_order_acquire);
  if (ips_likely(generation == w->lane_generation && learned == w->lane_learned && w->now_ns - w->lane_since_ns < IPS_LANE_NS))
    return;
  for (unsigned i = 0; i < IPS_LANE_ENDS; i++) w->lane_ends[i].endpoint = IPS_NONE;
  w->lane_least = (struct ips_lane_end){.room = UINT32_MAX};
  bool open = w->root && is_ordinary(w->root);
  w->lane_open[IPS_OUTER] = open && w->header->roles & IPS_ROLE_OUTER && !(w->header->flags & IPS_IMAGE_ANTISPOOF);
  w->lane_open[IPS_INNER] = open && w->header->roles & IPS_ROLE_INNER;
  w->lane_generation = generation;
  w->lane_learned = learned;
  w->lane_since_ns = w->now_ns;
}

/* The whole way says why; and the lane is opened anew with the lease. */
static __attribute__((cold)) void close_lane(struct ips_worker *w) {
  w->lane_open[IPS_OUTER] = w->lane_open[IPS_INNER] = false;
  w->lane_generation = UINT64_MAX;
}

void ips_worker_begin(struct ips_worker *w, uint64_t now_ns) {
  w->root = ips_reader_begin(w->tables, w->index);
  w->header = w->root ? ips_root_header(w->root) : NULL;
  w->now_ns = now_ns;
  w->has_lease = now_ns < atomic_load_explicit(&w->shared->forward_until, memory_order_acquire);
  refresh_lane(w);
  if (ips_unlikely(!w->has_lease)) close_lane(w);
  w->counters->frames++;
}

bool ips_worker_is_paired(const struct ips_worker *w) {
  return atomic_load_explicit(&w->shared->forward_until, memory_order_relaxed) != UINT64_MAX;
}

void ips_worker_look_again(struct ips_worker *w, uint64_t now_ns) {
  w->has_lease = w->has_lease && now_ns < atomic_load_explicit(&w->shared->forward_until, memory_order_acquire);
  if (ips_unlikely(!w->has_lease)) close_lane(w);
}

static void emit_coalesced(void *arg, struct ips_pkt *p) {
  struct ips_worker *w = arg;
  w->emit(w->arg, p, IPS_EMIT_PACKET);
}

void ips_worker_end(struct ips_worker *w) {
  ips_gro_flush(w->gro, emit_coalesced, w);
  w->root = NULL;
  ips_reader_end(w->tables, w->index);
}

void ips_worker_emit(struct ips_worker *w, uint8_t *data, uint32_t len, enum ips_emit kind) {
  struct ips_pkt p = {.data = data, .len = len, .total_len = len, .headroom = IPS_HEADROOM,
                      .counter = IPS_NONE, .endpoint = IPS_NONE};
  w->emit(w->arg, &p, kind);
}

bool ips_worker_may_send_error(struct ips_worker *w) {
  double rate = w->header->icmp_rate;
  w->error_tokens += (double)(w->now_ns - w->error_tokens_at) * 1e-9 * rate;
  w->error_tokens_at = w->now_ns;
  if (w->error_tokens > rate) w->error_tokens = rate; /* a burst of one second's worth */
  if (w->error_tokens < 1) {
    w->counters->errors_limited++;
    return false;
  }
  w->error_tokens -= 1;
  return true;
}

void ips_worker_error(struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v, enum ips_error_kind kind,
                      uint32_t mtu) {
  const uint8_t *source = v->family == 4 ? w->header->icmp_source4 : w->header->icmp_source6;
  if (ips_is_zero(source)) return;
  size_t n = ips_make_error(p, v, kind, mtu, source, w->error + IPS_HEADROOM, IPS_ERROR_BYTES - IPS_HEADROOM);
  if (!n || !ips_worker_may_send_error(w)) return;
  w->counters->errors_sent++;
  ips_worker_emit(w, w->error + IPS_HEADROOM, (uint32_t)n, IPS_EMIT_ERROR);
}

/* The sparse matrix binding x verdict: open addressing, never emptied, so that a
 * reader may look at any time. Without a free cell nearby the event is counted
 * once, in drop_overflow; the verdict's own counter never misses one. */
void ips_worker_count_drop(struct ips_worker *w, uint32_t counter, int verdict) {
  if (counter == IPS_NONE) return;
  uint32_t at = ips_drop_at(counter, verdict);
  for (unsigned i = 0; i < IPS_DROP_PROBES; i++) {
    struct ips_drop_cell *cell = &w->counters->drops[(at + i) % IPS_DROP_CELLS];
    if (cell->packets == 0) {
      cell->counter = counter;
      cell->verdict = (uint32_t)verdict;
    } else if (cell->counter != counter || cell->verdict != (uint32_t)verdict) {
      continue;
    }
    __atomic_store_n(&cell->packets, cell->packets + 1, __ATOMIC_RELEASE);
    return;
  }
  w->counters->drop_overflow++;
}
