/* ops_dispatch.c: the operations on clusters; what they mean is in native/flows/flows_dispatch.h. */
#define _GNU_SOURCE
#include "control.h"
#include "dispatch.h"
#include <stdlib.h>

static struct ips_ctl_dispatch wanted; /* main thread only */

int op_dispatch_set(struct call *c) {
  struct engine *e = c->control->engine;
  const char *sentence = "";
  memcpy(&wanted, c->payload, sizeof wanted);
  if (wanted.n_clusters > IPS_CLUSTERS || wanted.n_servers > IPS_SERVERS)
    return refuse(c, IPS_CTL_BAD_ARGUMENT, "there can be 64 clusters with 512 servers in all");
  const char *wrong = dispatch_prepare(e, &wanted);
  if (wrong) return refuse(c, IPS_CTL_BAD_ARGUMENT, "%s", wrong);
  int status = flows_dispatch_set(e->flows, &wanted, &sentence);
  if (status != IPS_CTL_OK) return refuse(c, status, "%s", sentence);
  dispatch_set(e, &wanted);
  return status;
}

int op_dispatch_state(struct call *c) {
  struct engine *e = c->control->engine;
  struct ips_ctl_server_state *out = (struct ips_ctl_server_state *)(void *)c->out;
  uint32_t n = flows_dispatch_state(e->flows, out);
  for (uint32_t i = 0; i < n; i++) {
    uint32_t number = ips_sessions_number(e->flows->sessions, out[i].family, out[i].address);
    out[i].has_mac = dispatch_mac(e, number, out[i].mac);
  }
  c->out_bytes = n * (uint32_t)sizeof *out;
  return IPS_CTL_OK;
}
_Static_assert(IPS_SERVERS * sizeof(struct ips_ctl_server_state) <= (size_t)OUT_ROOM, "all of them fit into an answer");
_Static_assert(sizeof(struct ips_ctl_dispatch) + sizeof(struct ips_ctl_request) <= IPS_CTL_MAX_MESSAGE, "and into a request");
