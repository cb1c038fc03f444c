/* pair_world.h: two pair machines, their disks, the paths between them and a witness, as one plain value.
 *
 * A step is one tick of true time; each node has a clock of its own rate. What may go wrong is a list of
 * events, one of which may happen before a step; most of them are switches. All of it is copied by
 * assignment, so that an exploration can go back. Messages pass through the codec: the machine never says
 * what the decoder refuses.
 */
#ifndef PAIR_WORLD_H
#define PAIR_WORLD_H
#include "ips_pair.h"
#include "ips_witness_api.h"
#include "check.h"

#define UNIT 1000000ull
enum { QUEUE = 40, NEVER = 255 };

#define EVENTS(E) \
  E(NOTHING) E(CUT_A) E(CUT_B) E(CUT_BOTH) E(LOSE_A) E(LOSE_B) E(DELAY_A) E(DELAY_B) E(PAUSE_A) E(PAUSE_B) \
  E(CRASH_A) E(CRASH_B) E(DISK_A) E(DISK_B) E(FORGET_A) E(FORGET_B) E(LINK_A) E(LINK_B) E(STALL_A) E(STALL_B) \
  E(SWITCH_A) E(SWITCH_B) E(CRITERIA_A) E(CRITERIA_B) E(WITNESS) E(WITNESS_A) E(WITNESS_B) E(RESTART)
enum event {
#define E(name) EV_##name,
  EVENTS(E)
#undef E
  N_EVENTS
};
static const char *const event_names[] = {
#define E(name) #name,
  EVENTS(E)
#undef E
};

struct flight { struct ips_pair_msg msg; uint64_t at; };
struct node {
  struct ips_pair m;
  struct flight queue[QUEUE]; /* towards this node */
  uint64_t lease, disk, wanted, last_reign, stalled_at, boot, asked, asked_for;
  struct ips_pair_epoch answered; /* by the witness, under way */
  uint8_t n_queue, up, paused, resumed, cut, lose, delay, disk_stuck, has_disk, stalled, link, witness_cut;
  uint8_t heard_reign, answer, cut_off, zero[1]; /* it has processed a message of the peer's present reign */
};
struct world {
  uint64_t now;
  struct node n[2];
  struct ips_witness witness;
  uint8_t witness_down, net_faulted, disk_lost, zero[5];
};
struct setup { bool witness; uint8_t mode; int rate[2]; };

static struct setup setup;
static const char *broken; /* the first claim that did not hold */

#define CLAIM(c) do { if (!(c) && !broken) broken = #c; } while (0)

static uint64_t clock_of(const struct world *w, int i) {
  return (w->now * UNIT / 1000000) * (uint64_t)(1000000 + setup.rate[i]);
}
static bool forwards(const struct world *w, int i) { return w->n[i].up && ips_pair_gate(&w->n[i].lease,
    clock_of(w, i)) == IPS_OK; }

static struct ips_pair_config config_of(int i) {
  return (struct ips_pair_config){
    .node = (uint32_t)i + 1, .peer = 2 - (uint32_t)i, .clock_ppm = 100000, .n_paths = 2, .mode = setup.mode,
    .witness = setup.witness, .losses = 4, .jitter_times = 1, .tick_ns = UNIT * 9 / 10, .interval_ns = UNIT,
    .dead_ns = 4 * UNIT, .lease_ns = 3 * UNIT, .late_ns = UNIT * 3 / 2, .stall_ns = 2 * UNIT,
        .hold_ns = 4 * UNIT,
    .witness_ttl_ns = 6 * UNIT, .witness_ask_ns = UNIT,
  };
}

/* What must hold after every single input. */
static void claims(const struct world *w) {
  if (!forwards(w, 0) || !forwards(w, 1)) return;
  CLAIM(!setup.witness);
  CLAIM(w->net_faulted);
  int lower = ips_pair_higher(&(struct ips_pair_epoch){w->n[0].m.reign, 1, 0},
      &(struct ips_pair_epoch){w->n[1].m.reign, 2, 0});
  CLAIM(!w->n[lower].heard_reign || w->n[lower].paused);
}

static void put(struct world *w, int to, const struct ips_pair_msg *msg, uint64_t at) {
  struct node *n = &w->n[to];
  if (n->n_queue == QUEUE) { /* a socket buffer is bounded too: the oldest goes */
    memmove(n->queue, n->queue + 1, sizeof *n->queue * (QUEUE - 1));
    n->n_queue--;
  }
  n->queue[n->n_queue++] = (struct flight){*msg, at};
}

static void send_to(struct world *w, int from, const struct ips_pair_msg *said) {
  struct node *n = &w->n[from];
  uint8_t bytes[IPS_PAIR_BYTES];
  struct ips_pair_msg msg;
  memset(&msg, 0, sizeof msg);
  ips_pair_encode(said, bytes);
  CLAIM(ips_pair_decode(bytes, sizeof bytes, &msg) == 0);
  CLAIM(memcmp(&msg, said, sizeof msg) == 0);
  if (!n->cut && !n->lose) put(w, 1 - from, &msg, w->now + (n->delay ? 4 : 1));
}

/* The answer arrives a step later; the latest one only. */
static void ask(struct world *w, int i, uint64_t counter, uint64_t asked) {
  struct node *n = &w->n[i];
  uint32_t id = (uint32_t)i + 1;
  if (w->witness_down || n->witness_cut) return;
  struct ips_witness_msg m = {.kind = IPS_WITNESS_ASK, .counter = counter, .asked_ns = asked, .ttl_ns = 6 * UNIT};
  n->answer = (uint8_t)ips_witness_judge(&w->witness, id, &m, w->now * UNIT);
  n->answered = w->witness.granted;
  n->asked = asked;
  n->asked_for = counter;
}

static void act(struct world *w, int i, const struct ips_pair_actions *out) {
  struct node *n = &w->n[i];
  for (uint32_t k = 0; k < out->n; k++) {
    const struct ips_pair_action *a = &out->a[k];
    switch (a->kind) {
      case IPS_PAIR_SEND: send_to(w, i, &a->msg); break;
      case IPS_PAIR_LEASE:
        n->lease = a->value;
        if (a->value) CLAIM(n->has_disk && n->m.reign && n->m.reign <= n->disk);
        break;
      case IPS_PAIR_PERSIST: n->wanted = a->value; break;
      case IPS_PAIR_STATE:
        if (a->to == IPS_PAIR_ACTIVE && n->m.reign) {
          CLAIM(n->m.reign > n->last_reign || w->disk_lost);
          n->last_reign = n->m.reign;
          n->heard_reign = w->n[1 - i].heard_reign = 0;
        }
        break;
      case IPS_PAIR_ASK: ask(w, i, a->value, a->at_ns); break;
      case IPS_PAIR_RELEASE:
        if (!w->witness_down && !n->witness_cut) {
          struct ips_witness_msg m = {.kind = IPS_WITNESS_RELEASE, .counter = a->value, .asked_ns = clock_of(w, i)};
          ips_witness_release(&w->witness, (uint32_t)i + 1, &m, w->now * UNIT);
        }
    }
  }
  n->m.late_max_ns = n->m.pauses = n->m.contests = 0; /* only counted */
  claims(w);
}

static void facts(struct world *w, int i, struct ips_pair_actions *out) {
  struct node *n = &w->n[i];
  struct ips_pair_facts f = {.link_up = n->link, .criteria_ok = !n->cut_off, .loaded = 1, .mirror_ready = 1};
  f.workers_ns = n->stalled ? n->stalled_at : clock_of(w, i);
  ips_pair_set_facts(&n->m, &f, clock_of(w, i), out);
  act(w, i, out);
}

static void boot(struct world *w, int i) {
  struct node *n = &w->n[i];
  struct ips_pair_config cfg = config_of(i);
  struct ips_pair_actions out;
  memset(n->queue, 0, sizeof n->queue);
  n->n_queue = n->paused = n->stalled = n->heard_reign = n->answer = 0;
  n->lease = n->wanted = 0;
  n->up = 1;
  ips_pair_start(&n->m, &cfg, ++n->boot, n->has_disk, n->disk, clock_of(w, i));
  facts(w, i, &out);
}

static void kill_node(struct node *n) { n->up = 0; n->lease = 0; }

static void one(struct world *w, enum event e, int i) {
  struct node *n = &w->n[i];
  struct ips_pair_actions out;
  switch (e) {
    case EV_CUT_A: n->cut ^= 1; w->net_faulted = 1; break;
    case EV_LOSE_A: n->lose = 1; w->net_faulted = 1; break;
    case EV_DELAY_A: n->delay = 1; w->net_faulted = 1; break;
    case EV_PAUSE_A: n->resumed = n->paused; n->paused ^= 1; break;
    case EV_CRASH_A: if (n->up) kill_node(n); else boot(w, i); break;
    case EV_DISK_A: n->disk_stuck ^= 1; break;
    case EV_FORGET_A: n->has_disk = 0; n->disk = 0; w->disk_lost = 1; boot(w, i); break;
    case EV_LINK_A: n->link ^= 1; break;
    case EV_STALL_A: n->stalled ^= 1; n->stalled_at = clock_of(w, i); break;
    case EV_CRITERIA_A: n->cut_off ^= 1; break;
    case EV_WITNESS_A: n->witness_cut ^= 1; break;
    case EV_SWITCH_A:
      if (!n->up || n->paused) break;
      ips_pair_order(&n->m, IPS_PAIR_SWITCHOVER, clock_of(w, i), &out);
      act(w, i, &out);
      break;
    default: break;
  }
}

static void happen(struct world *w, enum event e) {
  if (e == EV_NOTHING) return;
  if (e == EV_CUT_BOTH) one(w, EV_CUT_A, 0), one(w, EV_CUT_A, 1);
  else if (e == EV_WITNESS) w->witness_down ^= 1;
  else if (e == EV_RESTART) ips_witness_start(&w->witness, w->witness.granted, 6 * UNIT, 6 * UNIT, w->now * UNIT);
  else if (e > EV_CUT_BOTH && e < EV_WITNESS) one(w, e - (e - EV_LOSE_A) % 2, (e - EV_LOSE_A) % 2);
  else if (e > EV_WITNESS) one(w, EV_WITNESS_A, e - EV_WITNESS_A);
  else one(w, EV_CUT_A, e - EV_CUT_A);
}

static void drain(struct world *w, int i, struct ips_pair_actions *out) {
  struct node *n = &w->n[i];
  const struct ips_pair *other = &w->n[1 - i].m;
  for (unsigned k = 0; k < n->n_queue;) {
    if (n->queue[k].at > w->now) {
      k++;
      continue;
    }
    struct ips_pair_msg msg = n->queue[k].msg;
    memmove(n->queue + k, n->queue + k + 1, sizeof *n->queue * (QUEUE - 1 - k));
    memset(&n->queue[--n->n_queue], 0, sizeof *n->queue);
    ips_pair_message(&n->m, &msg, clock_of(w, i), out);
    bool reigns = msg.state == IPS_PAIR_ACTIVE && w->n[1 - i].up && msg.epoch.counter == other->reign;
    if (reigns && other->reign) n->heard_reign = 1;
    act(w, i, out);
  }
}

static void step(struct world *w, enum event e) {
  struct ips_pair_actions out;
  w->now++;
  happen(w, e);
  for (int i = 0; i < 2; i++) {
    struct node *n = &w->n[i];
    if (!n->up || n->paused) continue;
    bool was = n->resumed && n->m.state == IPS_PAIR_ACTIVE && !forwards(w, i) && !n->m.alone;
    n->resumed = 0;
    int answer = n->answer;
    n->answer = 0;
    if (answer && !n->witness_cut) {
      ips_pair_witness(&n->m, answer, n->asked_for, n->answered, n->asked, clock_of(w, i), &out);
      act(w, i, &out);
    }
    drain(w, i, &out);
    if (n->wanted && !n->disk_stuck) {
      uint64_t counter = n->wanted;
      n->wanted = 0;
      n->has_disk = 1;
      n->disk = counter > n->disk ? counter : n->disk;
      ips_pair_persisted(&n->m, counter, true, clock_of(w, i), &out);
      act(w, i, &out);
    }
    facts(w, i, &out);
    ips_pair_tick(&n->m, clock_of(w, i), &out);
    act(w, i, &out);
    if (was) CLAIM(!forwards(w, i)); /* promise (a): its lease ran out meanwhile: first it asks */
  }
  for (int i = 0; i < 2; i++) w->n[i].lose = w->n[i].delay = 0;
}

static void heal(struct world *w) {
  w->witness_down = 0;
  for (int i = 0; i < 2; i++) {
    struct node *n = &w->n[i];
    n->resumed = n->paused;
    n->cut = n->paused = n->disk_stuck = n->stalled = n->witness_cut = n->cut_off = 0;
    n->link = 1;
    if (!n->up) boot(w, i);
  }
}

static void new_world(struct world *w, const struct setup *s) {
  memset(w, 0, sizeof *w);
  setup = *s;
  w->now = 100;
  w->witness.longest_ns = 6 * UNIT; /* it has run for long, and granted nothing yet */
  for (int i = 0; i < 2; i++) {
    w->n[i].link = w->n[i].has_disk = 1;
    boot(w, i);
  }
}
#endif
