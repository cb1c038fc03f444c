/* ops_dispatch.c: what this host adds to the orders on clusters (native/flows/flows_orders.c): servers' devices and
 * hardware addresses. */
#define _GNU_SOURCE
#include "control.h"
#include "dispatch.h"

int op_dispatch_set(struct call *c) {
  static struct ips_ctl_dispatch wanted; /* main thread only */
  struct engine *e = c->control->engine;
  memcpy(&wanted, c->payload, sizeof wanted);
  const char *wrong = flows_dispatch_fault(&wanted);
  if (!wrong) wrong = dispatch_prepare(e, &wanted);
  if (wrong) return refuse(c, IPS_CTL_BAD_ARGUMENT, "%s", wrong);
  int status = op_flows(c);
  if (status == IPS_CTL_OK) dispatch_set(e, &wanted);
  return status;
}

int op_dispatch_state(struct call *c) {
  struct engine *e = c->control->engine;
  struct ips_ctl_server_state *out = (struct ips_ctl_server_state *)(void *)c->out;
  int status = op_flows(c);
  for (uint32_t i = 0; status == IPS_CTL_OK && i < c->out_bytes / sizeof *out; i++) {
    uint32_t number = ips_sessions_number(e->flows->sessions, out[i].family, out[i].address);
    out[i].has_mac = dispatch_mac(e, number, out[i].mac);
  }
  return status;
}
_Static_assert(sizeof(struct ips_ctl_dispatch) + sizeof(struct ips_ctl_request) <= IPS_CTL_MAX_MESSAGE,
               "it fits into a request");
