/* ops_natlog.c: the operations on NAT logs; what they do is native/natlog. */
#include "control.h"

int op_natlog_set(struct call *c) {
  struct ips_ctl_natlog wanted;
  const char *sentence = "";
  memcpy(&wanted, c->payload, sizeof wanted);
  int status = natlog_set(c->control->engine->natlog, &wanted, &sentence);
  return status == IPS_CTL_OK ? status : refuse(c, status, "%s", sentence);
}

int op_natlog_state(struct call *c) {
  struct ips_ctl_natlog_state state;
  natlog_state(c->control->engine->natlog, &state);
  memcpy(c->out, &state, c->out_bytes = sizeof state);
  return IPS_CTL_OK;
}
