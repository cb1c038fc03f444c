/* ops_tap.c: the operations on taps, and the replies that wait for a tap's end. */
#include "control.h"
#include <errno.h>

int op_tap_start(struct call *c) {
  struct ips_ctl_tap rule;
  struct ips_ctl_tap_state state;
  const char *sentence;
  uint32_t slot;
  memcpy(&rule, c->payload, sizeof rule);
  if (rule.target != IPS_TAP_FILE && c->fd >= 0)
    return refuse(c, IPS_CTL_BAD_FD, "only a file's tap takes a descriptor");
  int fd = c->fd;
  c->fd = -1; /* tap_start takes it */
  errno = 0;
  int status = tap_start(c->control->engine->taps, &rule, fd, (int)c->client->number, &slot, &sentence);
  if (status != IPS_CTL_OK) {
    c->error.system_errno = errno;
    return refuse(c, status, "%s", sentence);
  }
  tap_state(c->control->engine->taps, slot, &state);
  memcpy(c->out, &state, c->out_bytes = sizeof state);
  return IPS_CTL_OK;
}

/* The final state of a tap that ended a while ago, or NULL. */
static const struct ips_ctl_tap_state *ended(const struct control *c, uint64_t id) {
  for (uint32_t i = 0; i < IPS_CTL_MAX_TAPS; i++)
    if (id && c->ended[i].id == id) return &c->ended[i];
  return NULL;
}

bool wait_later(struct call *c, uint64_t about) {
  for (int i = 0; i < MAX_WAITERS && !c->deferred; i++) {
    if (c->control->waiters[i].client) continue;
    c->control->waiters[i] = (struct waiter){about, c->client->number, c->head.seq, c->head.op};
    c->deferred = true;
  }
  return c->deferred;
}

static int wait_for_end(struct call *c, bool stop) {
  struct ips_ctl_tap_id wanted;
  memcpy(&wanted, c->payload, sizeof wanted);
  int slot = tap_slot_of(c->control->engine->taps, wanted.id);
  const struct ips_ctl_tap_state *past = ended(c->control, wanted.id);
  if (past) {
    memcpy(c->out, past, c->out_bytes = sizeof *past);
    return IPS_CTL_OK;
  }
  if (slot < 0) return refuse(c, IPS_CTL_NO_SUCH_TAP, "there is no tap %llu", (unsigned long long)wanted.id);
  if (!wait_later(c, wanted.id)) return refuse(c, IPS_CTL_TOO_MANY, "too many clients wait for taps");
  if (stop) tap_stop(c->control->engine->taps, (uint32_t)slot);
  return IPS_CTL_OK;
}

int op_tap_stop(struct call *c) { return wait_for_end(c, true); }
int op_tap_wait(struct call *c) { return wait_for_end(c, false); }

int op_tap_list(struct call *c) {
  const struct taps *t = c->control->engine->taps;
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++) {
    struct ips_ctl_tap_state state;
    if (!atomic_load(&t->slots[slot].status)) continue;
    tap_state(t, slot, &state);
    memcpy(c->out + c->out_bytes, &state, sizeof state);
    c->out_bytes += (uint32_t)sizeof state;
  }
  return IPS_CTL_OK;
}

/* Tells everyone who waited for a tap that has ended, and frees its slot. */
void answer_waiters(struct control *c) {
  struct taps *t = c->engine->taps;
  for (uint32_t slot = 0; slot < IPS_CTL_MAX_TAPS; slot++) {
    struct ips_ctl_tap_state state;
    if (atomic_load(&t->slots[slot].status) != IPS_TAP_ENDED) continue;
    tap_state(t, slot, &state);
    for (int i = 0; i < MAX_WAITERS; i++) {
      struct waiter *w = &c->waiters[i];
      if (!w->client || w->about != state.id || w->op == IPS_CTL_PAIR_WAIT) continue;
      struct client *client = control_client(c, w->client);
      struct ips_ctl_request to = {.op = w->op, .seq = w->seq};
      if (client) control_reply(client, &to, IPS_CTL_OK, &state, sizeof state, -1);
      w->client = 0;
    }
    c->ended[c->n_ended++ % IPS_CTL_MAX_TAPS] = state;
    tap_release(t, slot);
  }
}
