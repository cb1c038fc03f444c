/* tap_worker.c: the worker's part of taps. Runs only while a tap exists.
 *
 * A packet is copied before the core sees it (the core changes it in place), and what it
 * became after; both stay private in the ring until the verdict, by which taps may
 * filter. Copies of marked bindings (S1.16) come from the core, through emit.
 */
#include "tap.h"

/* The packet in hand. */
static _Thread_local uint32_t sampled;  /* taps whose die fell right */
static _Thread_local uint64_t began_at; /* ring position of its first record */

static uint32_t die(struct tap_worker *w) { /* xorshift32 */
  w->random ^= w->random << 13;
  w->random ^= w->random >> 17;
  w->random ^= w->random << 5;
  return w->random;
}

/* Taps of this side, by their dice, that want `flag`. */
static uint32_t wanting(const struct tap_worker *w, uint32_t flag, uint32_t unless) {
  uint32_t bits = 0;
  for (uint32_t i = 0; i < w->set->n; i++) {
    const struct ips_ctl_tap *rule = &w->set->taps[i].rule;
    if (rule->flags & flag && !(rule->flags & unless) && rule->sides & 1u << w->side)
      bits |= 1u << w->set->taps[i].slot;
  }
  return bits & sampled;
}

/* Bytes that the greediest of them keeps. A super-packet stays whole for targets
 * that must cut it into segments; they truncate each segment. */
static uint32_t snap(const struct tap_worker *w, uint32_t bits, const struct ips_pkt *p) {
  uint32_t most = 0;
  for (uint32_t i = 0; i < w->set->n; i++) {
    const struct ips_ctl_tap *rule = &w->set->taps[i].rule;
    if (!(bits & 1u << w->set->taps[i].slot)) continue;
    if (!rule->snaplen || (p->gso_type && rule->target != IPS_TAP_FILE)) return p->len;
    if (rule->snaplen > most) most = rule->snaplen;
  }
  return most < p->len ? most : p->len;
}

static void lose(struct tap_worker *w, uint32_t bits) {
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++)
    if (bits & 1u << slot) atomic_fetch_add_explicit(&w->ring->lost[slot], 1, memory_order_relaxed);
}

static void record(struct tap_worker *w, uint32_t bits, const struct ips_pkt *p, bool is_after, int kind) {
  uint32_t kept = snap(w, bits, p);
  struct tap_record *r = tap_ring_append(w->ring, kept);
  if (!r) {
    lose(w, bits);
    return;
  }
  uint32_t bytes = r->bytes;
  *r = (struct tap_record){
    .bytes = bytes, .taps = bits, .realtime_ns = tap_clock_ns(CLOCK_REALTIME),
    .generation = w->core->root ? w->core->root->generation : 0,
    .kept = kept, .length = p->len, .cell = p->counter, .gso_size = p->gso_size, .csum_start = p->csum_start,
    .csum_offset = p->csum_offset, .gso_type = p->gso_type, .csum = p->csum,
    .side = (uint8_t)w->side, .is_after = is_after, .kind = (uint8_t)kind,
  };
  memcpy(r->data, p->data, kept);
}

void tap_before(struct tap_worker *w, const struct ips_pkt *p) {
  sampled = 0;
  for (uint32_t i = 0; i < w->set->n; i++)
    if (w->set->taps[i].rule.sample <= 1 || die(w) % w->set->taps[i].rule.sample == 0)
      sampled |= 1u << w->set->taps[i].slot;
  began_at = w->ring->next;
  uint32_t bits = wanting(w, IPS_TAP_BEFORE, IPS_TAP_MARKED);
  if (bits) record(w, bits, p, false, IPS_EMIT_PACKET);
}

void tap_emitted(struct tap_worker *w, const struct ips_pkt *p, int kind) {
  uint32_t bits = kind == IPS_EMIT_COPY ? wanting(w, IPS_TAP_MARKED, 0)
                                        : wanting(w, IPS_TAP_AFTER, IPS_TAP_MARKED);
  if (bits) record(w, bits, p, kind != IPS_EMIT_COPY, kind);
}

/* Taps whose filter takes this packet. */
static uint32_t passing(const struct tap_worker *w, uint32_t cell, int verdict) {
  uint32_t bits = 0;
  for (uint32_t i = 0; i < w->set->n; i++) {
    const struct ips_ctl_tap *rule = &w->set->taps[i].rule;
    if (rule->verdicts && !(rule->verdicts >> verdict & 1)) continue;
    if (rule->cell_count && (cell == IPS_NONE || cell - rule->cell_first >= rule->cell_count)) continue;
    bits |= 1u << w->set->taps[i].slot;
  }
  return bits;
}

void tap_verdict(struct tap_worker *w, const struct ips_pkt *p, int verdict) {
  uint32_t after = wanting(w, IPS_TAP_AFTER, IPS_TAP_MARKED);
  if (after && ips_dispositions[verdict] == IPS_SEND) record(w, after, p, true, IPS_EMIT_PACKET);
  uint32_t takers = passing(w, p->counter, verdict), wanted = 0;
  for (uint64_t at = began_at; at < w->ring->next;) {
    struct tap_record *r = tap_ring_at(w->ring, at);
    at += r->bytes;
    if (r->taps == TAP_FILLER) continue; /* has no room for the fields below */
    r->taps &= takers;
    r->verdict = (uint8_t)verdict;
    r->cell = p->counter;
    wanted |= r->taps;
  }
  if (!wanted) w->ring->next = began_at;
  tap_ring_publish(w->ring);
  began_at = w->ring->next;
  sampled = UINT32_MAX; /* what the end of the frame emits (coalesced segments) belongs to several packets */
}

void tap_frame_end(struct tap_worker *w) {
  struct taps *t = w->taps;
  for (uint64_t at = began_at; at < w->ring->next;) { /* coalesced segments, sent just now */
    struct tap_record *r = tap_ring_at(w->ring, at);
    at += r->bytes;
    if (r->taps == TAP_FILLER) continue;
    r->verdict = IPS_COALESCED;
    r->taps &= passing(w, r->cell, IPS_COALESCED);
  }
  began_at = w->ring->next;
  tap_ring_publish(w->ring);
  if (atomic_load_explicit(&w->ring->head, memory_order_relaxed) == w->ring->next) return;
  /* The thread says that it sleeps, then looks at the rings again: one of us sees the other. */
  atomic_thread_fence(memory_order_seq_cst);
  if (atomic_exchange(&t->thread_asleep, false)) tap_signal(t->kick);
}
