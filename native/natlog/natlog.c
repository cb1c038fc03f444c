/* natlog.c: the thread of NAT logs, and what the control side asks of it (contract in natlog.h).
 *
 * The thread looks into the rings every 20 ms: a worker that woke it would make a system call for a packet. Rings
 * of 16,384 records hold what 800,000 openings a second make in that time.
 */
#define _GNU_SOURCE
#include "natlog_send.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECORDS = 1 << 14, TURN_NS = 20 * 1000 * 1000, MOST_S = 86400, FACILITIES = 24 };

struct natlog *natlog_create(uint32_t workers) {
  struct natlog *n = calloc(1, sizeof *n);
  pthread_condattr_t monotonic;
  if (!n) return NULL;
  n->workers = workers;
  pthread_mutex_init(&n->lock, NULL);
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&n->wake, &monotonic);
  pthread_condattr_destroy(&monotonic);
  return n;
}

static void *run(void *arg) {
  struct natlog *n = arg;
  pthread_mutex_lock(&n->lock);
  while (!n->stopping) {
    struct timespec until;
    natlog_turn(n);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TURN_NS;
    if (until.tv_nsec >= 1000000000) {
      until.tv_nsec -= 1000000000;
      until.tv_sec++;
    }
    pthread_cond_timedwait(&n->wake, &n->lock, &until);
  }
  natlog_turn(n);
  pthread_mutex_unlock(&n->lock);
  return NULL;
}

static void close_targets(struct natlog *n) {
  for (uint32_t i = 0; i < n->config.n_targets; i++) close(n->targets[i].fd);
  n->config.n_targets = 0;
}

void natlog_destroy(struct natlog *n) {
  if (!n) return;
  pthread_mutex_lock(&n->lock);
  n->stopping = true;
  pthread_cond_signal(&n->wake);
  pthread_mutex_unlock(&n->lock);
  if (n->running) pthread_join(n->thread, NULL);
  close_targets(n);
  ips_natlog_free(n->rings);
  free(n);
}

void natlog_attach(struct natlog *n, struct ips_sessions *table) {
  pthread_mutex_lock(&n->lock);
  n->table = table;
  if (n->rings) ips_sessions_set_log(table, n->rings);
  pthread_mutex_unlock(&n->lock);
}

static const char *fault_of(const struct ips_ctl_natlog *c) {
  if (c->n_targets > IPS_CTL_NATLOG_TARGETS) return "more than 8 collectors";
  if (c->what & ~(uint32_t)(IPS_NATLOG_SESSIONS | IPS_NATLOG_MAPPINGS | IPS_NATLOG_LIMITS))
    return "unknown kinds of events are wanted";
  if (!c->template_s || c->template_s > MOST_S) return "templates are sent again after 1 to 86400 seconds";
  if (!memchr(c->host, 0, sizeof c->host)) return "the host name does not end";
  for (const char *p = c->host; *p; p++)
    if (*p <= ' ' || *p > '~') return "a host name is of printable ASCII characters";
  for (const struct ips_ctl_natlog_target *t = c->targets; t < c->targets + c->n_targets; t++) {
    if ((t->family != 4 && t->family != 6) || !t->port) return "a collector has no address of IPv4 or IPv6, or no port";
    if (t->format != IPS_CTL_NATLOG_IPFIX && t->format != IPS_CTL_NATLOG_SYSLOG) return "unknown format of a log";
    if (t->facility >= FACILITIES) return "a syslog facility is a number from 0 to 23";
  }
  return NULL;
}

/* Rings and thread, the first time; with the lock held. */
static bool start(struct natlog *n) {
  if (!n->rings && !(n->rings = ips_natlog_new(n->workers, RECORDS))) return false;
  if (!n->running) {
    errno = pthread_create(&n->thread, NULL, run, n);
    if (errno) return false;
    n->running = true;
  }
  if (n->table) ips_sessions_set_log(n->table, n->rings);
  return true;
}

static void take_over(struct natlog *n, const struct ips_ctl_natlog *c, const int *fds) {
  struct ips_natlog_stats stats = {0};
  if (n->rings) natlog_turn(n); /* what happened before is the former collectors' */
  close_targets(n);
  if (n->rings) ips_natlog_stats(n->rings, &stats);
  n->config = *c;
  for (uint32_t i = 0; i < c->n_targets; i++)
    n->targets[i] = (struct natlog_target){.fd = fds[i], .lost_told = stats.lost};
  n->ipfix = (struct ips_ipfix){.domain = c->domain, .template_ns = c->template_s * 1000000000ull,
                                .lost_told = stats.lost};
  n->syslog = (struct ips_syslog){.pid = (uint32_t)getpid()};
  memcpy(n->syslog.host, c->host, sizeof n->syslog.host);
  if (n->rings) ips_natlog_want(n->rings, c->n_targets ? c->what : 0);
}

int natlog_set(struct natlog *n, const struct ips_ctl_natlog *c, const char **sentence) {
  int fds[IPS_CTL_NATLOG_TARGETS], status = IPS_CTL_OK;
  uint32_t opened = 0;
  if ((*sentence = fault_of(c))) return IPS_CTL_BAD_ARGUMENT;
  pthread_mutex_lock(&n->lock);
  bool same = !memcmp(&n->config, c, sizeof *c);
  while (!same && opened < c->n_targets && (fds[opened] = natlog_open(&c->targets[opened])) >= 0) opened++;
  if (!same && opened < c->n_targets) {
    *sentence = "there is no socket left for a collector";
    status = IPS_CTL_SYSTEM;
  } else if (!same && c->n_targets && !start(n)) {
    *sentence = "there is no memory for NAT logs";
    status = IPS_CTL_SYSTEM;
  } else if (!same) {
    take_over(n, c, fds);
  }
  while (status && opened) close(fds[--opened]);
  pthread_mutex_unlock(&n->lock);
  return status;
}

void natlog_state(struct natlog *n, struct ips_ctl_natlog_state *out) {
  struct ips_natlog_stats stats = {0};
  pthread_mutex_lock(&n->lock);
  if (n->rings) ips_natlog_stats(n->rings, &stats);
  *out = (struct ips_ctl_natlog_state){.records = n->taken, .lost = stats.lost,
                                       .n_targets = n->config.n_targets, .what = n->config.what};
  for (uint32_t i = 0; i < n->config.n_targets; i++) out->targets[i] = n->targets[i].sent;
  pthread_mutex_unlock(&n->lock);
}
