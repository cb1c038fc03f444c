/* flows_orders_remap.c: orders about remaps (ips_control_remap.h), for every host: what they take and answer. What
 * they do is in flows_remap.c. */
#define _GNU_SOURCE
#include "flows_orders.h"
#include "flows_remap.h"
#include <string.h>

static int set(struct flows *f, struct flows_order *o) {
  struct ips_ctl_remap wanted;
  memcpy(&wanted, o->payload, sizeof wanted);
  int status = flows_remap_set(f, &wanted, &o->sentence);
  explicit_bzero(&wanted, sizeof wanted);
  return status;
}

static int none(struct flows_order *o, uint64_t id) {
  o->sentence = "there is no remap";
  o->about = id;
  return IPS_CTL_BAD_ARGUMENT;
}

static uint64_t id_of(const struct flows_order *o) {
  struct ips_ctl_remap_id which;
  memcpy(&which, o->payload, sizeof which);
  return which.id;
}

static int clear(struct flows *f, struct flows_order *o) {
  struct ips_ctl_session_filter unused;
  uint64_t id = id_of(o);
  if (!flows_remap_table(f, id, &unused)) return none(o, id);
  o->sentence = "out of memory";
  if (!flows_remap_clear(f, id, &o->reply.remap)) return IPS_CTL_SYSTEM;
  o->reply_bytes = sizeof o->reply.remap;
  return IPS_CTL_OK;
}

static int state(struct flows *f, struct flows_order *o) {
  if (!flows_remap_state(f, id_of(o), &o->reply.remap)) return none(o, id_of(o));
  o->reply_bytes = sizeof o->reply.remap;
  return IPS_CTL_OK;
}

static int list(struct flows *f, struct flows_order *o) {
  o->reply_bytes = flows_remap_list(f, o->remaps, IPS_REMAPS) * sizeof *o->remaps;
  return IPS_CTL_OK;
}

static int begin_flows(struct flows *f, struct flows_order *o) {
  struct ips_ctl_remap_wanted wanted;
  memcpy(&wanted, o->payload, sizeof wanted);
  o->table = flows_remap_table(f, wanted.id, &o->filter);
  if (!o->table) return none(o, wanted.id);
  o->filter.limit = wanted.limit;
  return FLOWS_MORE;
}

int flows_order_remap(struct flows *f, struct flows_order *o) {
  switch (o->op) {
    case IPS_CTL_REMAP_SET: return set(f, o);
    case IPS_CTL_REMAP_CLEAR: return clear(f, o);
    case IPS_CTL_REMAP_STATE: return state(f, o);
    case IPS_CTL_REMAP_LIST: return list(f, o);
    default: return begin_flows(f, o);
  }
}
