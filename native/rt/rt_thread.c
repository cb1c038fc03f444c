/* rt_thread.c: the real-time thread: waits for a datagram, a frame, a link's change, the disk or the next tick; what has
 * come in is read out first, so that a tick after a pause judges by the newest that is known. */
#define _GNU_SOURCE
#include "../ips_seal.h"
#include "../ips_witness_api.h"
#include "rt.h"
#include "rt_path.h"
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { DATAGRAMS = 64, FRAMES = 64, PRIORITY = 50, ROOM = 2048 };
#define RETRY_NS 500000000ull

static void message(struct rt *rt, uint32_t path, const uint8_t *bytes, size_t n) {
  uint8_t plain[ROOM], type;
  size_t plain_n;
  struct ips_pair_msg m;
  uint64_t now = rt_now_ns();
  int result = ips_seal_open(rt->seal, bytes, n, now, &type, plain, &plain_n);
  bool is_pair = result == IPS_SEAL_OK_ && type == IPS_SEAL_PAIR;
  if (result >= IPS_SEAL_SHORT_) rt->state.refused++;
  else rt->state.received++;
  if (result <= IPS_SEAL_KEEPALIVE_ || result == IPS_SEAL_OPENED_) /* others may be recordings */
    rt->path_heard_ns[path] = rt->state.peer_heard_ns = now;
  if (!is_pair) return;
  if (ips_pair_decode(plain, plain_n, &m)) {
    rt->state.refused++;
    return;
  }
  ips_pair_message(&rt->machine, &m, now, &rt->actions);
  rt_carry_out(rt, now);
}

static void read_paths(struct rt *rt) {
  uint8_t bytes[ROOM];
  for (uint32_t i = 0; i < rt->set.n_paths; i++) {
    ssize_t n;
    for (int k = 0; rt->path[i] >= 0 && k < DATAGRAMS && (n = rt_path_receive(rt->path[i], bytes, sizeof bytes)) >= 0; k++)
      message(rt, i, bytes, (size_t)n);
  }
}

static void open_paths(struct rt *rt, uint64_t now) {
  for (uint32_t i = 0; i < rt->set.n_paths; i++) {
    if (rt->path[i] >= 0 || now < rt->path_retry_ns[i]) continue;
    rt->path[i] = rt_path_open(&rt->set.paths[i]);
    rt->path_retry_ns[i] = now + RETRY_NS;
  }
}

static ssize_t receive(struct rt *rt, uint32_t link, uint8_t frame[RT_FRAME]) {
  return rt->host.links->receive(rt->host.links_arg, &rt->links[link], frame, RT_FRAME);
}

static void read_links(struct rt *rt) {
  uint8_t frame[RT_FRAME];
  for (uint32_t i = 0; i < rt->n_links; i++) {
    ssize_t n;
    for (int k = 0; rt->links[i].fd >= 0 && k < FRAMES && (n = receive(rt, i, frame)) >= 0; k++)
      rt_vip_answer(rt, i, frame, (size_t)n);
  }
}

static void refresh_links(struct rt *rt) {
  bool came_up = false;
  for (uint32_t i = 0; i < rt->n_links; i++) {
    uint8_t solicited[IPS_CTL_PAIR_VIPS][3];
    unsigned n = 0;
    for (uint32_t v = 0; v < rt->set.n_vips; v++)
      if (rt->vips[v].link == i && rt->vips[v].rec.family == 6) memcpy(solicited[n++], rt->vips[v].rec.address + 13, 3);
    for (uint32_t p = 0; p < rt->set.n_publics; p++)
      if (rt->public_link[p] == i && rt->set.publics[p].family == 6) rt->links[i].wants_all = true;
    bool was_up = rt->links[i].is_up;
    rt->host.links->refresh(rt->host.links_arg, &rt->links[i], (const uint8_t (*)[3])solicited, n);
    came_up |= rt->links[i].is_up && !was_up;
  }
  if (!came_up) return; /* what was announced before did not leave */
  rt_vip_announce(rt);
  rt_public_announce(rt);
}

static void look_at_facts(struct rt *rt, uint64_t now) {
  uint64_t progress[IPS_CTL_MAX_WORKERS];
  rt->host.progress(rt->host.arg, progress);
  uint32_t failed = rt_reach_turn(&rt->reach, &rt->set, now);
  uint32_t met = rt->set.n_criteria - (uint32_t)__builtin_popcount(failed);
  rt->state.criteria_failed = failed;
  struct ips_pair_facts facts = {
    .workers_ns = ips_pair_slowest(&rt->workers, progress, rt->host.n_workers, now),
    .link_up = 1, .criteria_ok = met >= rt->set.criteria_needed,
    .loaded = ips_tables_live(rt->host.tables) != NULL,
    .mirror_ready = !rt->host.mirror_ready ||
                    rt->host.mirror_ready(rt->host.flows, rt->set.flags & IPS_CTL_PAIR_MIRRORED),
  };
  rt_late_workers(&rt->late, now - facts.workers_ns, now, &rt->state);
  rt->state.links_down = 0;
  for (uint32_t v = 0; v < rt->set.n_vips; v++)
    if (!rt->links[rt->vips[v].link].is_up && !rt->link_is_port[rt->vips[v].link]) rt->state.links_down |= 1u << v, facts.link_up = 0;
  rt->state.publics_down = 0;
  for (uint32_t p = 0; p < rt->set.n_publics; p++)
    if (!rt->links[rt->public_link[p]].is_up && !rt->link_is_port[rt->public_link[p]]) rt->state.publics_down |= 1u << p, facts.link_up = 0;
  ips_pair_set_facts(&rt->machine, &facts, now, &rt->actions);
  rt_carry_out(rt, now);
}

static void look_at_disk(struct rt *rt, uint64_t now) {
  uint64_t failed = atomic_load(&rt->epoch.failed), done = atomic_load(&rt->epoch.on_disk);
  if (!rt->machine.persisting) return;
  bool ok = done >= rt->machine.persisting;
  if (!ok && failed != rt->machine.persisting) return;
  rt->state.flags = ok ? rt->state.flags & ~(uint32_t)IPS_CTL_PAIR_NO_EPOCH_FILE : rt->state.flags | IPS_CTL_PAIR_NO_EPOCH_FILE;
  ips_pair_persisted(&rt->machine, rt->machine.persisting, ok, now, &rt->actions);
  rt_carry_out(rt, now);
}

static void hear_witness(struct rt *rt) {
  struct ips_witness_msg m;
  for (uint64_t now; rt_witness_hear(&rt->witness, &m, now = rt_now_ns());) {
    ips_pair_witness(&rt->machine, m.answer, m.counter, m.highest, m.asked_ns, now, &rt->actions);
    rt_carry_out(rt, now);
  }
}

static void take_order(struct rt *rt, uint64_t now) {
  uint64_t order = atomic_exchange(&rt->order, 0);
  if (!order) return;
  uint32_t what = (uint32_t)((order - 1) >> 32), argument = (uint32_t)(order - 1);
  int command = what == IPS_CTL_PAIR_SWITCHOVER ? IPS_PAIR_SWITCHOVER : what == IPS_CTL_PAIR_FORCE ? IPS_PAIR_FORCE
                : argument ? IPS_PAIR_MAINTENANCE : IPS_PAIR_SERVICE;
  atomic_store(&rt->answer, ips_pair_order(&rt->machine, command, now, &rt->actions));
  rt_carry_out(rt, now);
  rt_signal(rt->answered);
}

static void note_channel(struct rt *rt, uint64_t now) {
  struct ips_seal_info info;
  ips_seal_info(rt->seal, now, &info);
  const uint32_t anew = IPS_CTL_PAIR_WRONG_KEY | IPS_CTL_PAIR_MISMATCH | IPS_CTL_PAIR_SAME_NODE | IPS_CTL_PAIR_NO_WITNESS |
                        IPS_CTL_PAIR_OTHER_VERSION | IPS_CTL_PAIR_READY;
  uint32_t flags = rt->state.flags & ~anew;
  if (!info.alive && ips_seal_counter(rt->seal, IPS_SEAL_WRONG_KEY_)) flags |= IPS_CTL_PAIR_WRONG_KEY;
  if (!info.alive && ips_seal_counter(rt->seal, IPS_SEAL_NOT_PEER_)) flags |= IPS_CTL_PAIR_SAME_NODE;
  if (info.other_version) flags |= IPS_CTL_PAIR_OTHER_VERSION;
  if (!ips_pair_unready(&rt->machine)) flags |= IPS_CTL_PAIR_READY;
  if (info.open && info.mismatch & 1u << RT_SEAL_ITEM) flags |= IPS_CTL_PAIR_MISMATCH;
  rt->state.differs = info.open ? (uint32_t)info.mismatch >> (RT_SEAL_ITEM + 1) : 0;
  rt->state.flags = flags | rt_witness_notes(&rt->witness, now);
}

/* Who looks holds the lock for a copy's time; if it is taken, the next tick publishes. */
static void publish(struct rt *rt, uint64_t now) {
  struct ips_ctl_pair_state *s = &rt->state;
  const struct ips_pair *m = &rt->machine;
  s->now_ns = now;
  s->epoch = m->highest.counter;
  s->epoch_node = m->highest.node;
  s->forward_until_ns = m->forward_until_ns;
  s->jitter_ns = m->late_max_ns;
  s->pauses = m->pauses;
  s->ports_wrong = rt_ports_wrong(&rt->ports);
  s->granted_until_ns = m->grant_until_ns;
  s->peer_state = m->peer.state;
  s->paths_up = 0;
  for (uint32_t i = 0; i < rt->set.n_paths; i++)
    if (rt->path_heard_ns[i] && now - rt->path_heard_ns[i] < rt->times.dead_ns) s->paths_up |= 1u << i;
  if (pthread_mutex_trylock(&rt->published_lock)) return;
  rt->published = *s;
  pthread_mutex_unlock(&rt->published_lock);
  if (rt->told == s->changes) return;
  rt->told = s->changes;
  rt_signal(rt->host.wake_event);
}

static void turn(struct rt *rt) {
  read_paths(rt);
  hear_witness(rt);
  read_links(rt);
  uint64_t now = rt_now_ns();
  look_at_disk(rt, now);
  look_at_facts(rt, now);
  take_order(rt, now);
  ips_pair_tick(&rt->machine, now, &rt->actions);
  rt_carry_out(rt, now);
  open_paths(rt, now);
  rt_say_due(rt, now);
  rt_public_turn(rt, now);
  rt_witness_tick(&rt->witness, &rt->set.witness, now);
  note_channel(rt, now);
  publish(rt, now);
}

/* Real-time where that is allowed; without it the pair works too, and its measured jitter says how well. */
static bool be_punctual(void) {
  struct sched_param p = {.sched_priority = PRIORITY};
  prctl(PR_SET_TIMERSLACK, 1UL);
  mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
  return pthread_setschedparam(pthread_self(), SCHED_FIFO, &p) == 0;
}

static uint32_t fill_polls(const struct rt *rt, struct pollfd *fds) {
  uint32_t n = 0;
  fds[n++] = (struct pollfd){.fd = rt->kick, .events = POLLIN};
  fds[n++] = (struct pollfd){.fd = rt->epoch.done, .events = POLLIN};
  fds[n++] = (struct pollfd){.fd = rt->link_events, .events = POLLIN};
  fds[n++] = (struct pollfd){.fd = rt->witness.fd, .events = POLLIN};
  for (uint32_t i = 0; i < rt->set.n_paths; i++) fds[n++] = (struct pollfd){.fd = rt->path[i], .events = POLLIN};
  for (uint32_t i = 0; i < rt->n_links; i++) fds[n++] = (struct pollfd){.fd = rt->links[i].fd, .events = POLLIN};
  return n;
}

void *rt_thread(void *arg) {
  struct rt *rt = arg;
  struct pollfd fds[4 + IPS_CTL_PAIR_PATHS + RT_LINKS];
  struct timespec tick = {.tv_nsec = (long)rt->times.tick_ns}, pace = {.tv_nsec = 1000000};
  if (be_punctual()) rt->state.flags |= IPS_CTL_PAIR_REALTIME;
  rt_late_open(&rt->late, rt->times.late_ns / 2, rt->times.stall_ns);
  rt_late_woken(&rt->late, rt_now_ns(), &rt->state);
  refresh_links(rt);
  while (!atomic_load(&rt->stop)) {
    uint64_t events;
    turn(rt);
    rt_late_done(&rt->late, rt_now_ns(), rt->times.tick_ns, &rt->state);
    uint32_t n = fill_polls(rt, fds);
    bool is_walking = rt->walk.runs; /* announcements, some each millisecond */
    ppoll(fds, n, is_walking && tick.tv_nsec > pace.tv_nsec ? &pace : &tick, NULL);
    rt_late_woken(&rt->late, rt_now_ns(), &rt->state);
    for (uint32_t i = 0; i < 2; i++)
      if (fds[i].revents && read(fds[i].fd, &events, sizeof events) < 0) continue;
    if (fds[2].revents) {
      rt->host.links->drain_events(rt->link_events);
      refresh_links(rt);
    }
  }
  rt_late_close(&rt->late);
  return NULL;
}
