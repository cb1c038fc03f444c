/* flows_hold.c: a session's first packet waits until each ready standby has the session (decision 0021).
 *
 * A queue per packet thread, of bounded length and bytes, first in, first out: numbers and deadlines rise.
 * Whoever follows on the same flow waits behind, and so do later fragments of a datagram whose first one waits.
 * No standby ready: nothing waits. The standby silent: what
 * waits goes when commit_us is over. No room: it goes at once. Both are counted. Its lease over, or handed
 * over meanwhile: what waits is dropped, for the other end would believe in a session that nobody has.
 */
#define _GNU_SOURCE
#include "../ips_chain.h"
#include "../ips_encap.h"
#include "../ips_worker.h"
#include "flows_mirror.h"
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

/* Writable bytes before a packet that is sent; IPv6 extension headers that are passed. */
enum { BEFORE = 128, MOST_HEADERS = 4 };
struct keys { uint64_t flow, datagram; };

#define GET(counter) atomic_load_explicit(&(counter), memory_order_relaxed)
#define ADD(counter, n) atomic_store_explicit(&(counter), GET(counter) + (n), memory_order_relaxed)

bool flows_hold_open(struct flows_worker *w) {
  w->held = calloc(FLOWS_HELD, sizeof *w->held);
  w->arena = malloc(FLOWS_ARENA); /* pages that no packet touches take no memory */
  w->committed_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return w->held && w->arena && w->committed_event >= 0;
}

void flows_hold_close(struct flows_worker *w) {
  free(w->held);
  free(w->arena);
  if (w->committed_event >= 0) close(w->committed_event);
}

/* Where the transport header of an IPv6 packet would begin; at most MOST_HEADERS are passed. */
static uint32_t behind_headers(const uint8_t *ip, uint32_t len, uint8_t *next) {
  uint32_t l4 = 40;
  for (unsigned i = 0; i < MOST_HEADERS && l4 + 8 <= len; i++) {
    if (*next != IPS_PROTO_HOPOPTS && *next != IPS_PROTO_DSTOPTS && *next != IPS_PROTO_ROUTING) break;
    *next = ip[l4];
    l4 += (ip[l4 + 1] + 1u) * 8;
  }
  return l4;
}

/* Of packets that must keep their order: addresses, protocol and ports as they are sent. Fragments have a second
 * key, of their datagram, 0 else; later ones, which show no ports, have that one alone. */
static struct keys keys_of(const struct ips_pkt *p) {
  const uint8_t *ip = p->data;
  bool is6 = ip[0] >> 4 == 6, is_first = true;
  uint8_t next = is6 ? ip[6] : ip[9];
  uint32_t l4 = is6 ? behind_headers(ip, p->len, &next) : (ip[0] & 15) * 4u;
  uint64_t ends = is6 ? 6 : 4, id = 0;
  for (uint32_t i = is6 ? 8 : 12; i < (is6 ? 40u : 20u); i += 4) ends = ips_mix(ends, ips_ld32(ip + i));
  if (is6 && next == IPS_PROTO_FRAGMENT && l4 + 8 <= p->len) {
    id = ips_mix(ends, 1ull << 32 | ips_ld32(ip + l4 + 4)) | 1;
    is_first = !(ips_be16(ips_ld16(ip + l4 + 2)) & 0xfff8);
    next = ip[l4];
    l4 += 8;
  } else if (!is6 && ips_be16(ips_ld16(ip + 6)) & (IPS_MF | IPS_FRAG_OFFSET)) {
    id = ips_mix(ends, 1ull << 32 | (uint32_t)next << 16 | ips_ld16(ip + 4)) | 1;
    is_first = !(ips_be16(ips_ld16(ip + 6)) & IPS_FRAG_OFFSET);
  }
  if (!is_first) return (struct keys){id, id};
  uint64_t flow = ips_mix(ends, next);
  return (struct keys){l4 + 4 <= p->len ? ips_mix(flow, ips_ld32(ip + l4)) : flow, id};
}

static struct flows_held *at(struct flows_worker *w, uint32_t i) {
  return &w->held[(w->first_held + i) % FLOWS_HELD];
}

/* The last one that this packet must not overtake; NULL: none. */
static const struct flows_held *before(struct flows_worker *w, struct keys k) {
  for (uint32_t i = w->n_held; i--;)
    if (at(w, i)->key == k.flow || (k.datagram && at(w, i)->datagram == k.datagram)) return at(w, i);
  return NULL;
}

/* Contiguous room; the end of the arena is left unused where the packet does not fit there. */
static bool take_room(struct flows_worker *w, uint32_t bytes, struct flows_held *h) {
  uint32_t skipped = w->arena_next + bytes > FLOWS_ARENA ? FLOWS_ARENA - w->arena_next : 0;
  if (bytes > FLOWS_ARENA || w->arena_used + skipped + bytes > FLOWS_ARENA) return false;
  h->at = skipped ? 0 : w->arena_next;
  h->room = skipped + bytes;
  w->arena_next = h->at + bytes;
  w->arena_used += h->room;
  return true;
}

static bool append(struct flows_worker *w, const struct ips_pkt *p, uint32_t tag, struct flows_held h) {
  if (w->n_held == FLOWS_HELD || !take_room(w, BEFORE + p->len, &h)) return false;
  memcpy(w->arena + h.at + BEFORE, p->data, p->len);
  h.pkt = *p;
  h.tag = tag;
  w->held[(w->first_held + w->n_held++) % FLOWS_HELD] = h;
  atomic_store_explicit(&w->now_held, w->n_held, memory_order_relaxed);
  return true;
}

bool flows_keep(struct flows_worker *w, const struct ips_pkt *p, uint32_t tag) {
  uint64_t made = w->made;
  struct keys keys = keys_of(p);
  if (w->made_in_vain) ADD(w->uncommitted, 1);
  bool is_new = made || w->made_in_vain;
  w->made = 0;
  w->made_in_vain = false;
  if (is_new && !flows_is_active(w->flows)) { /* handed over in this frame */
    ADD(w->hold_dropped, 1);
    return true;
  }
  const struct flows_held *earlier = before(w, keys);
  bool must = made && ips_mirror_committed(w->mirror->core, w->index, made) == IPS_COMMIT_WAIT;
  if (!must && !earlier) return false;
  if (w->n_held && w->held_by != w->mirror) return false; /* another mirror since: they go next turn */
  w->held_by = w->mirror;
  struct flows_held h = {.key = keys.flow, .datagram = keys.datagram, .is_first = must};
  h.number = must ? made : earlier->number;
  h.until_ns = must ? w->core->now_ns + w->mirror->set.commit_us * 1000ull : earlier->until_ns;
  if (append(w, p, tag, h)) return true;
  ADD(w->hold_full, 1);
  if (must) ADD(w->uncommitted, 1);
  return false;
}

void flows_not_kept(struct flows_worker *w) {
  if (w->made_in_vain || ips_mirror_committed(w->mirror->core, w->index, w->made) == IPS_COMMIT_WAIT)
    ADD(w->uncommitted, 1);
  w->made = 0;
  w->made_in_vain = false;
}

static void end_first(struct flows_worker *w, bool is_sent) {
  struct flows_held h = *at(w, 0);
  h.pkt.data = w->arena + h.at + BEFORE;
  h.pkt.headroom = BEFORE;
  w->first_held = (w->first_held + 1) % FLOWS_HELD;
  w->n_held--;
  w->arena_used -= h.room;
  if (!w->n_held) w->arena_next = 0;
  atomic_store_explicit(&w->now_held, w->n_held, memory_order_relaxed);
  if (is_sent) w->send(w->send_arg, &h.pkt, h.tag);
  else ADD(w->hold_dropped, 1);
}

/* What the standby says of the first one; a mirror that is gone says nothing more. */
static int said(const struct flows_worker *w, const struct flows_held *h) {
  if (w->mirror != w->held_by) return IPS_COMMIT_ALONE;
  return ips_mirror_committed(w->mirror->core, w->index, h->number);
}

void flows_let_go(struct flows_worker *w) {
  uint64_t now = flows_now_ns();
  bool has_lease = now < atomic_load_explicit(&w->core->shared->forward_until, memory_order_acquire);
  flows_enter(w);
  while (w->n_held) {
    struct flows_held *h = at(w, 0);
    int commit = said(w, h);
    bool is_ours = has_lease && (commit == IPS_COMMIT_DONE || flows_is_active(w->flows));
    if (is_ours && commit == IPS_COMMIT_WAIT && now < h->until_ns) break;
    if (is_ours && h->is_first && commit == IPS_COMMIT_DONE) ADD(w->committed, 1);
    if (is_ours && h->is_first && commit != IPS_COMMIT_DONE) ADD(w->uncommitted, 1);
    end_first(w, is_ours);
  }
  flows_leave(w);
}

uint64_t flows_before_sleep(struct flows_worker *w) {
  uint64_t left = UINT64_MAX, now = flows_now_ns();
  if (!w->n_held) return left;
  struct flows_held *h = at(w, 0);
  atomic_store(&w->waits_for, h->number); /* then look: either we see it, or ips-mirror sees us */
  flows_enter(w);
  left = said(w, h) == IPS_COMMIT_WAIT && now < h->until_ns ? h->until_ns - now : 0;
  flows_leave(w);
  return left;
}

void flows_hold_committed(struct flows *f, struct flows_mirror *m) {
  uint64_t one = 1;
  atomic_thread_fence(memory_order_seq_cst);
  for (uint32_t i = 0; i < f->n_workers; i++) {
    struct flows_worker *w = &f->workers[i];
    uint64_t number = atomic_load(&w->waits_for);
    if (!number || ips_mirror_committed(m->core, i, number) == IPS_COMMIT_WAIT) continue;
    atomic_store(&w->waits_for, 0);
    if (write(w->committed_event, &one, sizeof one) < 0) continue; /* EAGAIN: it is readable already */
  }
}

void flows_hold_state(const struct flows *f, struct ips_ctl_flows_state *out) {
  for (uint32_t i = 0; i < f->n_workers; i++) {
    const struct flows_worker *w = &f->workers[i];
    out->committed += atomic_load_explicit(&w->committed, memory_order_relaxed);
    out->uncommitted += atomic_load_explicit(&w->uncommitted, memory_order_relaxed);
    out->held += atomic_load_explicit(&w->now_held, memory_order_relaxed);
    out->hold_dropped += atomic_load_explicit(&w->hold_dropped, memory_order_relaxed);
    out->hold_full += atomic_load_explicit(&w->hold_full, memory_order_relaxed);
  }
}
