/* ops_remap.c: the operations on remaps; what they mean is in native/flows/flows_remap.h. */
#define _GNU_SOURCE
#include "../flows/flows_remap.h"
#include "control.h"

static struct flows *flows_of(const struct call *c) { return c->control->engine->flows; }

int op_remap_set(struct call *c) {
  struct ips_ctl_remap wanted;
  const char *sentence = "";
  memcpy(&wanted, c->payload, sizeof wanted);
  int status = flows_remap_set(flows_of(c), &wanted, &sentence);
  explicit_bzero(&wanted, sizeof wanted);
  return status == IPS_CTL_OK ? status : refuse(c, status, "%s", sentence);
}

static int none(struct call *c, uint64_t id) {
  return refuse(c, IPS_CTL_BAD_ARGUMENT, "there is no remap %llu", (unsigned long long)id);
}

int op_remap_clear(struct call *c) {
  struct ips_ctl_remap_id which;
  struct ips_ctl_remap_state last;
  struct ips_ctl_session_filter unused;
  memcpy(&which, c->payload, sizeof which);
  const struct ips_sessions *table = flows_remap_table(flows_of(c), which.id, &unused);
  if (!table) return none(c, which.id);
  if (table != flows_of(c)->sessions) end_dump_of(c->control, table);
  if (!flows_remap_clear(flows_of(c), which.id, &last)) return refuse(c, IPS_CTL_SYSTEM, "out of memory");
  memcpy(c->out, &last, c->out_bytes = sizeof last);
  return IPS_CTL_OK;
}

int op_remap_list(struct call *c) {
  struct ips_ctl_remap_state all[IPS_REMAPS];
  uint32_t n = flows_remap_list(flows_of(c), all, IPS_REMAPS);
  memcpy(c->out, all, c->out_bytes = n * (uint32_t)sizeof *all);
  return IPS_CTL_OK;
}
_Static_assert(IPS_REMAPS * sizeof(struct ips_ctl_remap_state) <= (size_t)OUT_ROOM, "all of them fit into an answer");

int op_remap_state(struct call *c) {
  struct ips_ctl_remap_id which;
  struct ips_ctl_remap_state state;
  memcpy(&which, c->payload, sizeof which);
  if (!flows_remap_state(flows_of(c), which.id, &state)) return none(c, which.id);
  memcpy(c->out, &state, c->out_bytes = sizeof state);
  return IPS_CTL_OK;
}

int op_remap_flows(struct call *c) {
  struct ips_ctl_remap_wanted wanted;
  struct ips_ctl_session_filter filter;
  memcpy(&wanted, c->payload, sizeof wanted);
  const struct ips_sessions *table = flows_remap_table(flows_of(c), wanted.id, &filter);
  if (!table) return none(c, wanted.id);
  filter.limit = wanted.limit;
  return dump_sessions(c, table, &filter);
}
