/* flows_thread.c: ips-mirror: what comes in, what is due, what is to be told, in turns of at most some
 * milliseconds.
 *
 * A turn: datagrams -> the mirror's tick -> a slice of what a snapshot did not know -> a slice of the table
 * for time-outs, one for addresses that left their pools. It sleeps a millisecond while something moves, ten
 * else; who has a change for it wakes it then.
 */
#define _GNU_SOURCE
#include "../ips_mirror.h"
#include "../ips_seal.h"
#include "flows_mirror.h"
#include "flows_remap.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>

enum { STACK = 256 * 1024, BUSY_MS = 1, IDLE_MS = 10, ALONE_MS = 100, MOST_BUCKETS = 2048, PASS_S = 10 };
#define PUBLISH_NS 20000000ull
#define FRESH_NS 1000000000ull

void flows_wake(struct flows *f) {
  uint64_t one = 1;
  if (atomic_load(&f->is_idle) && atomic_exchange(&f->is_idle, false) &&
      write(f->wake, &one, sizeof one) < 0) {
    /* EAGAIN: it is readable already */
  }
}

/* ---- the mirror ---- */

static void take_role(struct flows_mirror *m) {
  uint64_t role = atomic_load(&m->flows->role);
  bool is_active = flows_is_active(m->flows);
  m->seen_role = role;
  if (role == m->told_role) return;
  uint64_t epoch = m->set.role == IPS_CTL_MIRROR_OBSERVER ? 0 : role >> 1;
  if (ips_mirror_set_role(m->core, is_active, epoch)) m->told_role = role;
}

static uint64_t refused(const struct flows_peer *p) {
  uint64_t n = p->too_long;
  for (int i = IPS_SEAL_SHORT_; i < IPS_SEAL_N_RESULTS; i++) n += ips_seal_counter(p->seal, i);
  return n;
}

static void publish(struct flows_mirror *m, uint64_t now_ns) {
  struct ips_mirror_stats s;
  uint8_t notes[IPS_CTL_MIRROR_PEERS] = {0};
  uint16_t differs[IPS_CTL_MIRROR_PEERS] = {0};
  uint64_t role = atomic_load(&m->flows->role), epoch = role >> 1;
  bool is_ready = role & 1 && !atomic_load(&m->flows->is_observer);
  if (is_ready) m->reigned = epoch + 1;
  if (is_ready) atomic_store(&m->is_fed, false); /* what it was told before is not what will hold after */
  is_ready |= atomic_load(&m->is_fed) && !m->has_failed;
  is_ready |= m->reigned == epoch + 1; /* it gave the role up, and nobody has it since: its sessions are the last ones */
  ips_mirror_stats(m->core, now_ns, &s);
  for (uint32_t p = 0; p < m->set.n_peers; p++) {
    struct ips_seal_info info;
    ips_seal_info(m->peers[p].seal, now_ns, &info);
    if (info.alive) notes[p] |= IPS_CTL_MIRROR_HEARD;
    else if (ips_seal_counter(m->peers[p].seal, IPS_SEAL_WRONG_KEY_)) notes[p] |= IPS_CTL_MIRROR_WRONG_KEY;
    if (info.other_version) notes[p] |= IPS_CTL_MIRROR_OTHER_VERSION;
    if (info.open && info.mismatch & 1u << FLOWS_ITEM) notes[p] |= IPS_CTL_MIRROR_MISMATCH;
    if (info.open) differs[p] = info.mismatch >> (FLOWS_ITEM + 1);
    is_ready |= s.peers[p].is_complete && now_ns - s.peers[p].heard_ns < FRESH_NS;
  }
  atomic_store(&m->ready_for, is_ready ? role : NOBODYS);
  if (now_ns - m->published_ns < PUBLISH_NS) return;
  m->published_ns = now_ns;
  pthread_mutex_lock(&m->lock); /* held by who looks, for a copy's time */
  m->stats = s;
  memcpy(m->notes, notes, sizeof m->notes);
  memcpy(m->differs, differs, sizeof m->differs);
  for (uint32_t p = 0; p < m->set.n_peers; p++) m->refused[p] = refused(&m->peers[p]);
  pthread_mutex_unlock(&m->lock);
}

bool flows_ready(void *flows, bool is_mirrored) {
  struct flows *f = flows;
  struct flows_mirror *m = atomic_load(&f->mirror);
  return m ? atomic_load(&m->ready_for) == atomic_load(&f->role) : !is_mirrored;
}

static uint64_t heads_of(const struct flows_mirror *m) {
  uint64_t sum = 0;
  for (uint32_t w = 0; w < m->flows->n_workers + 2; w++) sum += ips_ring_head(m->core, w);
  return sum;
}

static void mirror_turn(struct flows_mirror *m) {
  m->is_summing = false;
  take_role(m);
  flows_net_receive(m);
  uint64_t now = flows_now_ns(), heads = heads_of(m);
  if (heads != m->heads) m->busy_until_ns = now + 5000000;
  m->heads = heads;
  if (m->n_deferred) flows_sink_retry(m, now);
  flows_net_tick(m, now);
  flows_hold_committed(m->flows, m);
  publish(m, now);
}

/* ---- the table ---- */

struct pace { uint64_t at_ns; uint64_t due; };

/* Small tables are passed each second, large ones in PASS_S. True: more is due already. */
static bool expire(struct flows *f, struct pace *pace, uint64_t now_ns) {
  struct ips_sessions *t = f->sessions;
  uint64_t all = ips_sessions_buckets(t), least = all < 131072 ? all : 131072;
  uint64_t each_second = all / PASS_S > least ? all / PASS_S : least, passed = now_ns - pace->at_ns;
  pace->due += each_second * (passed / 1000000) / 1000;
  pace->at_ns += passed / 1000000 * 1000000;
  if (pace->due > all) pace->due = all;
  uint32_t n = pace->due < MOST_BUCKETS ? (uint32_t)pace->due : MOST_BUCKETS;
  ips_sessions_expire(t, flows_thread_ring(f), now_ns, n);
  ips_frag_expire(f->frags, now_ns, 64);
  pace->due -= n;
  return pace->due >= MOST_BUCKETS;
}

/* From the first node on whenever control asks: what it had set before is over. */
struct pruning { uint64_t seen, cursor; };

static bool prune(struct flows *f, struct pruning *p) {
  uint64_t asked = atomic_load(&f->prunes);
  if (asked != p->seen) *p = (struct pruning){asked, 0};
  if (p->cursor == UINT64_MAX) return false;
  ips_sessions_prune(f->sessions, flows_thread_ring(f), flows_now_ns(), &p->cursor, FLOWS_SLICE);
  return p->cursor != UINT64_MAX;
}

/* ---- the thread ---- */

static int patience(struct flows *f, struct flows_mirror *m, const struct flows_remap_set *s, bool has_more) {
  uint64_t now = flows_now_ns();
  if (has_more) return 0;
  if (!m && !s) return ALONE_MS;
  bool is_busy = m && now < m->busy_until_ns;
  for (uint32_t i = 0; s && i < s->n; i++) is_busy |= flows_remap_is_busy(s->at[i], now);
  if (is_busy && !(m && m->set.commit_acked)) return BUSY_MS;
  atomic_store(&f->is_idle, true);
  bool has_news = m && (heads_of(m) != m->heads || atomic_load(&f->role) != m->seen_role);
  for (uint32_t i = 0; s && i < s->n; i++) has_news |= flows_remap_heads(f, s->at[i]) != s->at[i]->heads;
  if (has_news) atomic_store(&f->is_idle, false);
  if (!atomic_load(&f->is_idle)) return 0;
  return is_busy ? BUSY_MS : IDLE_MS;
}

static void *run(void *arg) {
  struct flows *f = arg;
  struct flows_mirror *m = f->mirror;
  const struct flows_remap_set *s = f->remaps; /* neither is replaced while this thread runs */
  struct pollfd fds[1 + FLOWS_SOCKETS];
  struct pace pace = {flows_now_ns(), 0};
  struct pruning pruning = {0, 0}; /* a thread that begins anew looks at all of them once */
  while (!atomic_load(&f->stop)) {
    uint64_t events;
    if (m) {
      pthread_mutex_lock(&m->turn);
      mirror_turn(m);
    }
    bool has_more = ips_sessions_sweep(f->sessions, flows_thread_ring(f), FLOWS_SLICE);
    has_more |= expire(f, &pace, flows_now_ns());
    has_more |= prune(f, &pruning);
    has_more |= m && m->is_summing;
    if (m) pthread_mutex_unlock(&m->turn);
    for (uint32_t i = 0; s && i < s->n; i++) has_more |= flows_remap_turn(f, s->at[i]);
    uint32_t n = 0;
    fds[n++] = (struct pollfd){.fd = f->wake, .events = POLLIN};
    if (m) n += flows_net_poll(m, fds + n);
    for (uint32_t i = 0; s && i < s->n; i++) n += flows_net_poll(s->at[i]->m, fds + n);
    poll(fds, n, patience(f, m, s, has_more));
    atomic_store(&f->is_idle, false);
    if (fds[0].revents && read(f->wake, &events, sizeof events) < 0) continue;
  }
  return NULL;
}

int flows_thread_start(struct flows *f) {
  pthread_attr_t attributes;
  atomic_store(&f->stop, false);
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK);
  int error = pthread_create(&f->thread, &attributes, run, f);
  pthread_attr_destroy(&attributes);
  if (error) return error;
  pthread_setname_np(f->thread, "ips-mirror");
  f->runs = true;
  return 0;
}

void flows_thread_stop(struct flows *f) {
  uint64_t one = 1;
  if (!f->runs) return;
  atomic_store(&f->stop, true);
  if (write(f->wake, &one, sizeof one) < 0) { /* EAGAIN: it is readable already */ }
  pthread_join(f->thread, NULL);
  f->runs = false;
}
