/* rt.c: the life of the real-time thread. A pair that is set anew gets a new thread and a new machine; so all that the
 * thread reads is constant while it runs. A node whose pair is cleared translates like any other. */
#define _GNU_SOURCE
#include "rt.h"
#include "rt_path.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

enum { THREAD_STACK = 256 * 1024, ANSWER_MS = 2000 };

struct rt *rt_create(const struct rt_host *host) {
  struct rt *rt = calloc(1, sizeof *rt);
  if (!rt) return NULL;
  rt->host = *host;
  if (!rt->host.links) rt->host.links = &rt_links_of_linux;
  rt->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  rt->answered = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  pthread_mutex_init(&rt->published_lock, NULL);
  if (rt->kick >= 0 && rt->answered >= 0) return rt;
  free(rt);
  return NULL;
}

void rt_destroy(struct rt *rt) {
  if (!rt) return;
  rt_pair_clear(rt);
  close(rt->kick);
  close(rt->answered);
  pthread_mutex_destroy(&rt->published_lock);
  free(rt);
}

static int refuse(const char **sentence, int status, const char *text) {
  *sentence = text;
  return status;
}

static bool is_text(const char *s, size_t n) { return s[0] && memchr(s, 0, n); }

static int check(const struct ips_ctl_pair *p, struct ips_pair_config *times, const char **sentence) {
  const int bad = IPS_CTL_BAD_ARGUMENT;
  if (p->n_paths > IPS_CTL_PAIR_PATHS || p->n_vips > IPS_CTL_PAIR_VIPS)
    return refuse(sentence, bad, "more paths or VIPs than a pair can have");
  if (!is_text(p->node, sizeof p->node) || !is_text(p->peer, sizeof p->peer) || strcmp(p->node, p->peer) == 0)
    return refuse(sentence, bad, "the two nodes need a name each");
  if (!is_text(p->epoch_file, sizeof p->epoch_file) || p->epoch_file[0] != '/')
    return refuse(sentence, bad, "the epoch file needs an absolute path");
  for (uint32_t i = 0; i < p->n_paths; i++)
    if ((p->paths[i].family != 4 && p->paths[i].family != 6) || !p->paths[i].local_port || !p->paths[i].remote_port)
      return refuse(sentence, bad, "a path needs two addresses of one family, and two ports");
  for (uint32_t i = 0; i < p->n_vips; i++)
    if ((p->vips[i].family != 4 && p->vips[i].family != 6) || !is_text(p->vips[i].interface, sizeof p->vips[i].interface))
      return refuse(sentence, bad, "a VIP needs an address and an interface");
  if (p->witness.family && ((p->witness.family != 4 && p->witness.family != 6) || !p->witness.port || p->witness.ttl_ns < 50000000))
    return refuse(sentence, bad, "the witness needs an address, a port, and grants of 50 ms or more");
  if (p->n_criteria > IPS_CTL_PAIR_CRITERIA || p->criteria_needed > p->n_criteria)
    return refuse(sentence, bad, "more criteria than a pair can have, or more needed than there are");
  if (p->n_ports > IPS_CTL_PAIR_PORTS) return refuse(sentence, bad, "more sub-interfaces than a pair can have");
  for (uint32_t i = 0; i < p->n_ports; i++)
    if (!is_text(p->ports[i], sizeof p->ports[i])) return refuse(sentence, bad, "a sub-interface needs a name");
  if (p->n_publics > IPS_CTL_PAIR_PUBLICS) return refuse(sentence, bad, "more public prefixes than a pair can have");
  for (uint32_t i = 0; i < p->n_publics; i++) {
    const struct ips_ctl_pair_public *u = &p->publics[i];
    bool fits = (u->family == 4 && u->prefix_len >= 16 && u->prefix_len <= 32) ||
                (u->family == 6 && u->prefix_len >= 112 && u->prefix_len <= 128);
    if (!fits || !is_text(u->interface, sizeof u->interface))
      return refuse(sentence, bad, "a public prefix needs an interface, and has at most 65,536 addresses");
  }
  for (uint32_t i = 0; i < p->n_criteria; i++) {
    const struct ips_ctl_pair_criterion *k = &p->criteria[i];
    bool is_kind = k->kind >= IPS_CTL_PAIR_LINK && k->kind <= IPS_CTL_PAIR_ECHO;
    bool has_address = k->kind == IPS_CTL_PAIR_LINK || k->family == 4 || k->family == 6;
    if (!is_kind || !has_address || !k->misses || k->interval_ns < 10000000 || !is_text(k->interface, sizeof k->interface))
      return refuse(sentence, bad, "a criterion needs a kind, an interface, an address and times");
  }
  if (p->n_items > IPS_CTL_PAIR_ITEMS) return refuse(sentence, bad, "a pair has at most 12 items");
  for (uint32_t i = 0; i < p->n_items; i++)
    if (!p->items[i].name[0]) return refuse(sentence, bad, "an item needs a name");
  rt_times(p, times);
  uint64_t broken = ips_pair_check(times);
  return broken ? refuse(sentence, bad, ips_pair_rule(__builtin_ctzll(broken))) : IPS_CTL_OK;
}

static uint32_t link_of(struct rt *rt, const char *interface) {
  for (uint32_t i = 0; i < rt->n_links; i++)
    if (strcmp(rt->links[i].name, interface) == 0) return i;
  struct rt_link *l = &rt->links[rt->n_links];
  *l = (struct rt_link){.fd = -1};
  snprintf(l->name, sizeof l->name, "%s", interface);
  rt->link_is_port[rt->n_links] = false;
  for (uint32_t i = 0; i < rt->set.n_ports; i++)
    if (strcmp(rt->set.ports[i], interface) == 0) rt->link_is_port[rt->n_links] = true;
  return rt->n_links++;
}

/* What is on one interface shares its socket. */
static void place_vips(struct rt *rt) {
  rt->n_links = 0;
  rt->walk = (struct rt_walk){.runs = false};
  for (uint32_t i = 0; i < rt->set.n_vips; i++)
    rt->vips[i] = (struct rt_vip){link_of(rt, rt->set.vips[i].interface), rt->set.vips[i]};
  for (uint32_t i = 0; i < rt->set.n_publics; i++) rt->public_link[i] = link_of(rt, rt->set.publics[i].interface);
}

static void random_octets(void *arg, uint8_t *out, size_t n) {
  (void)arg;
  while (n) {
    ssize_t got = getrandom(out, n, 0);
    if (got > 0) out += got, n -= (size_t)got;
  }
}

static struct ips_seal *open_channel(const struct rt *rt, uint64_t boot) {
  struct ips_seal_config c = {.boot = boot, .n_keys = 1, .key_numbers = {1}, .n_items = (uint8_t)(1 + rt->set.n_items),
                              .hello_ns = rt->set.interval_ns > 10000000 ? rt->set.interval_ns : 10000000};
  c.silence_ns = 4 * (rt->times.dead_ns > c.hello_ns ? rt->times.dead_ns : c.hello_ns);
  snprintf((char *)c.id, sizeof c.id, "%u", rt->set.node_id);
  snprintf((char *)c.peer, sizeof c.peer, "%u", rt->set.peer_id);
  memcpy(c.keys[0], rt->set.key, sizeof c.keys[0]);
  c.items[RT_SEAL_ITEM] = (struct ips_seal_item){.name = "pair", .digest = rt->set.config_digest};
  for (uint32_t i = 0; i < rt->set.n_items; i++) {
    memcpy(c.items[RT_SEAL_ITEM + 1 + i].name, rt->set.items[i].name, sizeof c.items[0].name);
    c.items[RT_SEAL_ITEM + 1 + i].digest = rt->set.items[i].digest;
  }
  return ips_seal_new(&c, random_octets, NULL);
}

static int begin(struct rt *rt, const char **sentence) {
  uint64_t counter = 0, boot = 0;
  int has_file = rt_epoch_read(rt->set.epoch_file, &counter);
  if (has_file < 0)
    return refuse(sentence, IPS_CTL_SYSTEM, errno == EBADMSG ? "the epoch file is damaged: see docs/pair.md before removing it"
                                                             : "the epoch file cannot be read");
  while (!boot) random_octets(NULL, (uint8_t *)&boot, sizeof boot);
  rt->seal = open_channel(rt, boot);
  rt->link_events = rt->host.links->events(rt->host.links_arg);
  bool has_witness = rt_witness_start(&rt->witness, &rt->set, boot, random_octets);
  if (!rt->seal || !has_witness || rt->link_events < 0 || rt_epoch_start(&rt->epoch, rt->set.epoch_file) ||
      rt_ports_start(&rt->ports, &rt->set, rt->host.port_setter))
    return refuse(sentence, IPS_CTL_SYSTEM, "out of memory or descriptors");
  atomic_store(&rt->epoch.on_disk, counter);
  uint64_t now = rt_now_ns();
  ips_tables_set_lease(rt->host.tables, 0);
  rt->told_role = 0;
  rt->begun++;
  if (rt->host.role) rt->host.role(rt->host.flows, false, 0);
  ips_pair_start(&rt->machine, &rt->times, boot, has_file == 1, counter, now);
  rt->state.state = rt->state.old_state = rt->machine.state;
  rt->state.since_ns = now;
  rt->published = rt->state;
  rt->told = rt->state.changes;
  atomic_store(&rt->stop, false);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, THREAD_STACK);
  int error = pthread_create(&rt->thread, &attributes, rt_thread, rt);
  pthread_attr_destroy(&attributes);
  if (error) return refuse(sentence, IPS_CTL_SYSTEM, "no thread could be made");
  pthread_setname_np(rt->thread, "ips-pair");
  rt->runs = true;
  return IPS_CTL_OK;
}

static void end(struct rt *rt) {
  if (rt->runs) {
    atomic_store(&rt->stop, true);
    rt_signal(rt->kick);
    pthread_join(rt->thread, NULL);
  }
  rt->runs = false;
  rt_epoch_stop(&rt->epoch);
  for (uint32_t i = 0; i < IPS_CTL_PAIR_PATHS; i++)
    if (rt->path[i] >= 0) close(rt->path[i]);
  for (uint32_t i = 0; i < rt->n_links; i++) rt->host.links->close(&rt->links[i]);
  if (rt->link_events >= 0) close(rt->link_events);
  rt_ports_stop(&rt->ports);
  rt_witness_stop(&rt->witness);
  rt_reach_stop(&rt->reach);
  ips_seal_free(rt->seal);
  rt->seal = NULL;
}

int rt_pair_set(struct rt *rt, const struct ips_ctl_pair *p, const char **sentence) {
  struct ips_pair_config times;
  if (rt->is_set && memcmp(&rt->set, p, sizeof *p) == 0) return IPS_CTL_OK;
  int status = check(p, &times, sentence);
  if (status != IPS_CTL_OK) return status;
  uint64_t changes = rt->state.changes;
  if (rt->is_set) end(rt);
  rt->set = *p;
  rt->times = times;
  rt->state = (struct ips_ctl_pair_state){.changes = changes + 1};
  rt->witness = (struct rt_witness){.fd = -1};
  rt_reach_start(&rt->reach, rt->host.askers, rt->host.askers_arg);
  rt->ports = (struct rt_ports){.wake = -1};
  rt->link_events = rt->epoch.wake = rt->epoch.done = -1;
  for (uint32_t i = 0; i < IPS_CTL_PAIR_PATHS; i++)
    rt->path[i] = -1, rt->path_retry_ns[i] = rt->path_heard_ns[i] = 0;
  memset(&rt->workers, 0, sizeof rt->workers);
  place_vips(rt);
  rt->is_set = true;
  status = begin(rt, sentence);
  if (status != IPS_CTL_OK) {
    rt_pair_clear(rt);
    ips_tables_set_lease(rt->host.tables, 0); /* half a pair that could not start is no node that may forward */
  }
  rt_signal(rt->host.wake_event);
  return status;
}

void rt_pair_clear(struct rt *rt) {
  ips_tables_set_lease(rt->host.tables, UINT64_MAX);
  if (!rt->is_set) return;
  end(rt);
  ips_tables_set_lease(rt->host.tables, UINT64_MAX); /* the thread's last word may have been another */
  rt->is_set = false;
  explicit_bzero(&rt->set, sizeof rt->set);
  rt_signal(rt->host.wake_event);
}

bool rt_pair_state(struct rt *rt, struct ips_ctl_pair_state *out) {
  pthread_mutex_lock(&rt->published_lock);
  *out = rt->published;
  pthread_mutex_unlock(&rt->published_lock);
  return rt->is_set;
}

/* Waits for the thread, which takes orders at each tick. */
int rt_pair_order(struct rt *rt, const struct ips_ctl_pair_command *c, const char **sentence) {
  uint64_t events;
  if (!rt->is_set) return refuse(sentence, IPS_CTL_NO_PAIR, "this node is no half of a pair");
  if (c->order < IPS_CTL_PAIR_SWITCHOVER || c->order > IPS_CTL_PAIR_MAINTENANCE || c->argument > 1)
    return refuse(sentence, IPS_CTL_BAD_ARGUMENT, "unknown order");
  if (read(rt->answered, &events, sizeof events) < 0 && errno != EAGAIN)
    return refuse(sentence, IPS_CTL_SYSTEM, "the pair's thread cannot be asked");
  atomic_store(&rt->order, 1 + ((uint64_t)c->order << 32 | c->argument));
  rt_signal(rt->kick);
  if (poll(&(struct pollfd){.fd = rt->answered, .events = POLLIN}, 1, ANSWER_MS) != 1)
    return refuse(sentence, IPS_CTL_SYSTEM, "the pair's thread did not answer in time");
  *sentence = atomic_load(&rt->answer);
  return *sentence ? IPS_CTL_REFUSED : IPS_CTL_OK;
}
