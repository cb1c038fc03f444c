/* ops_pair.c: the operations on the redundant pair, and the replies that wait for its next change. */
#include "control.h"

int op_pair_set(struct call *c) {
  struct ips_ctl_pair p;
  const char *sentence = "";
  uint64_t begun = c->control->engine->rt->begun;
  memcpy(&p, c->payload, sizeof p);
  int status = rt_pair_set(c->control->engine->rt, &p, &sentence);
  explicit_bzero(&p, sizeof p);
  if (c->control->engine->rt->begun != begun) flows_mirror_renew(c->control->engine->flows);
  return status == IPS_CTL_OK ? status : refuse(c, status, "%s", sentence);
}

int op_pair_clear(struct call *c) {
  bool was_set = c->control->engine->rt->is_set;
  rt_pair_clear(c->control->engine->rt);
  flows_no_pair(c->control->engine->flows);
  if (was_set) flows_mirror_renew(c->control->engine->flows);
  return IPS_CTL_OK;
}

int op_pair_state(struct call *c) {
  struct ips_ctl_pair_state state;
  if (!rt_pair_state(c->control->engine->rt, &state)) return refuse(c, IPS_CTL_NO_PAIR, "this node is no half of a pair");
  memcpy(c->out, &state, c->out_bytes = sizeof state);
  return IPS_CTL_OK;
}

int op_pair_wait(struct call *c) {
  struct ips_ctl_pair_seen seen;
  struct ips_ctl_pair_state state;
  memcpy(&seen, c->payload, sizeof seen);
  if (!rt_pair_state(c->control->engine->rt, &state)) return refuse(c, IPS_CTL_NO_PAIR, "this node is no half of a pair");
  if (state.changes == seen.changes)
    return wait_later(c, seen.changes) ? IPS_CTL_OK : refuse(c, IPS_CTL_TOO_MANY, "too many clients wait for the pair");
  memcpy(c->out, &state, c->out_bytes = sizeof state);
  return IPS_CTL_OK;
}

int op_pair_command(struct call *c) {
  struct ips_ctl_pair_command command;
  const char *sentence = "";
  memcpy(&command, c->payload, sizeof command);
  int status = rt_pair_order(c->control->engine->rt, &command, &sentence);
  return status == IPS_CTL_OK ? status : refuse(c, status, "%s", sentence);
}

static void answer(struct control *c, const struct waiter *w, bool is_set, const struct ips_ctl_pair_state *state) {
  static const struct ips_ctl_error gone = {.text = "this node is no half of a pair any more"};
  struct client *client = control_client(c, w->client);
  struct ips_ctl_request to = {.op = w->op, .seq = w->seq};
  if (!client) return;
  if (is_set) control_reply(client, &to, IPS_CTL_OK, state, sizeof *state, -1);
  else control_reply(client, &to, IPS_CTL_NO_PAIR, &gone, sizeof gone, -1);
}

void answer_pair_waiters(struct control *c) {
  struct ips_ctl_pair_state state;
  bool is_set = rt_pair_state(c->engine->rt, &state);
  for (int i = 0; i < MAX_WAITERS; i++) {
    struct waiter *w = &c->waiters[i];
    if (!w->client || w->op != IPS_CTL_PAIR_WAIT || (is_set && w->about == state.changes)) continue;
    answer(c, w, is_set, &state);
    w->client = 0;
  }
}
