/* ips_pair.h: what the parts of the pair machine agree on among themselves (contract: ips_pair_api.h).
 *
 * An input passes: ips_pair.c (has this node been away? what is new?) -> ips_pair_decide.c (which state?) ->
 * ips_pair_quorum.c (votes, witness, lease) and ips_pair_send.c (what is said). Nothing here may allocate,
 * block, or look at a clock.
 */
#ifndef IPS_PAIR_H
#define IPS_PAIR_H
#include "ips_core.h"
#include "ips_pair_api.h"

enum ips_pair_reasons {
#define R(name, text) IPS_PAIR_WHY_##name,
#include "ips_pair_reason.def"
#undef R
  IPS_N_PAIR_REASONS
};
enum ips_pair_refusals {
#define P(name, text) IPS_PAIR_BAD_##name,
#include "ips_pair_refusal.def"
#undef P
  IPS_N_PAIR_REFUSALS
};

/* Counters and times beyond this are nonsense, and sums of them cannot overflow. */
#define IPS_PAIR_BOUND (1ull << 61)

static inline uint64_t ips_pair_max(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline uint64_t ips_pair_min(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* A duration of one clock on another one, at most and at least, both clocks wrong by clock_ppm. */
static inline uint64_t ips_pair_slow(const struct ips_pair_config *c, uint64_t t) {
  return t + t * 2 * c->clock_ppm / (1000000 - c->clock_ppm) + 1;
}
static inline uint64_t ips_pair_fast(const struct ips_pair_config *c, uint64_t t) {
  uint64_t less = t * 2 * c->clock_ppm / 1000000 + 1;
  return t > less ? t - less : 0;
}

static inline bool ips_pair_higher(const struct ips_pair_epoch *a, const struct ips_pair_epoch *b) {
  return a->counter != b->counter ? a->counter > b->counter : a->node > b->node;
}
static inline uint64_t ips_pair_used(const struct ips_pair *m) { /* counters up to this are spoilt */
  return ips_pair_max(m->highest.counter, m->floor);
}
static inline bool ips_pair_claimable(const struct ips_pair *m) {
  return m->knows && m->durable > ips_pair_used(m);
}
/* Silence counts only while this node was there to hear, and its links were up. */
static inline bool ips_pair_silent(const struct ips_pair *m) {
  uint64_t there = ips_pair_max(ips_pair_max(m->resumed_ns, m->started_ns), m->link_ns);
  uint64_t since = ips_pair_max(m->peer.heard_ns, there);
  return m->now_ns - since >= m->cfg.dead_ns;
}
static inline bool ips_pair_stalled(const struct ips_pair *m) {
  uint64_t since = ips_pair_max(m->facts.workers_ns, m->resumed_ns);
  return m->now_ns > since && m->now_ns - since > m->cfg.stall_ns;
}
static inline bool ips_pair_forwards(const struct ips_pair *m) { return m->now_ns < m->forward_until_ns; }

/* For workers, once per batch and before they translate: OK or PAIR_NOT_ACTIVE. *lease: value of the latest
 * IPS_PAIR_LEASE, stored by the pair thread; now_ns: their own look at the clock. */
static inline int ips_pair_gate(const uint64_t *lease, uint64_t now_ns) {
  return now_ns < __atomic_load_n(lease, __ATOMIC_ACQUIRE) ? IPS_OK : IPS_PAIR_NOT_ACTIVE;
}

struct ips_pair_action *ips_pair_emit(struct ips_pair_actions *out, int kind);

/* ips_pair_decide.c */
void ips_pair_decide(struct ips_pair *m, struct ips_pair_actions *out);
bool ips_pair_wants_reign(const struct ips_pair *m); /* standby, and only votes or time are missing */
bool ips_pair_prefers_me(const struct ips_pair *m);  /* of two that could be active */

/* ips_pair_quorum.c */
/* for which reign this node votes in its next message; 0: for none */
uint64_t ips_pair_vote(struct ips_pair *m);
void ips_pair_note_witness(struct ips_pair *m, int answer, uint64_t counter, struct ips_pair_epoch highest,
                           uint64_t asked_ns);
/* until when peer, witness or operator support the reign */
uint64_t ips_pair_support(const struct ips_pair *m);
void ips_pair_witness_turn(struct ips_pair *m, struct ips_pair_actions *out);
void ips_pair_revoke(struct ips_pair *m, struct ips_pair_actions *out);
void ips_pair_extend(struct ips_pair *m, struct ips_pair_actions *out);

/* ips_pair_send.c */
bool ips_pair_resigning(const struct ips_pair *m);
void ips_pair_speak(struct ips_pair *m, struct ips_pair_actions *out);
#endif
