/* flows_feed.c: sessions of the active node that somebody else than its mirror tells (a database, by the agent).
 *
 * They go through the same sink as the mirror's, under the lock that its thread holds in a turn, so that the table has
 * one who applies at a time. What a node that is active is told, or of an epoch that is over, is refused.
 */
#define _GNU_SOURCE
#include "flows_mirror.h"

static int refuse(const char **sentence, int status, const char *text) {
  *sentence = text;
  return status;
}

static bool is_record(const struct ips_ctl_fed *fed) {
  return (fed->what == IPS_SESSION_UPSERT || fed->what == IPS_SESSION_DELETE) && fed->rec.version;
}

/* Whole or not at all: what is odd is refused before anything is applied. */
static int apply(struct flows_mirror *m, const struct ips_mirror_sink *sink, const struct ips_ctl_fed *fed,
                 uint32_t n, const char **sentence) {
  for (uint32_t i = 0; i < n; i++)
    if (!is_record(&fed[i])) return refuse(sentence, IPS_CTL_BAD_ARGUMENT, "a record that is none of a session");
  for (uint32_t i = 0; i < n; i++)
    if (sink->apply(sink->arg, (int)fed[i].what, &fed[i].rec)) {
      atomic_store(&m->is_fed, false);
      return refuse(sentence, IPS_CTL_REFUSED, "the session table takes a record not: no room, or no pool of its address");
    }
  return IPS_CTL_OK;
}

static int feed(struct flows_mirror *m, const struct ips_ctl_feed *c, const struct ips_ctl_fed *fed,
                const char **sentence) {
  const struct ips_mirror_sink sink = flows_sink(m);
  if (flows_is_active(m->flows))
    return refuse(sentence, IPS_CTL_REFUSED, "this node is active: its sessions are its own");
  if (c->epoch < m->fed_epoch || c->epoch < atomic_load(&m->flows->role) >> 1)
    return refuse(sentence, IPS_CTL_REFUSED, "a higher epoch is known here: these sessions are of one that is over");
  m->fed_epoch = c->epoch;
  if (c->flags & (IPS_CTL_FEED_LOST | IPS_CTL_FEED_BEGIN)) atomic_store(&m->is_fed, false);
  if (c->flags & IPS_CTL_FEED_BEGIN) {
    sink.begin_snapshot(sink.arg, -1, c->flags & IPS_CTL_FEED_NEW_ORIGIN);
    m->has_begun = true;
  }
  int status = apply(m, &sink, fed, c->count, sentence);
  if (status != IPS_CTL_OK || !(c->flags & IPS_CTL_FEED_END)) return status;
  if (!m->has_begun) return refuse(sentence, IPS_CTL_REFUSED, "no snapshot has begun that could be whole");
  sink.end_snapshot(sink.arg, -1, true);
  m->has_begun = false;
  atomic_store(&m->is_fed, true);
  return IPS_CTL_OK;
}

int flows_feed(struct flows *f, const struct ips_ctl_feed *c, const struct ips_ctl_fed *fed, const char **sentence) {
  const uint32_t known = IPS_CTL_FEED_BEGIN | IPS_CTL_FEED_END | IPS_CTL_FEED_NEW_ORIGIN | IPS_CTL_FEED_LOST;
  struct flows_mirror *m = f->mirror;
  if (c->flags & ~known) return refuse(sentence, IPS_CTL_BAD_ARGUMENT, "unknown flags");
  if (!m) return refuse(sentence, IPS_CTL_REFUSED, "this node has no mirror: it is not to be fed");
  pthread_mutex_lock(&m->turn);
  int status = feed(m, c, fed, sentence);
  pthread_mutex_unlock(&m->turn);
  flows_wake(f);
  return status;
}
