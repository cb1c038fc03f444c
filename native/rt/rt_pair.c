/* rt_pair.c: carries out what the pair's machine wants: datagrams to the peer, the lease, the disk, announcements. */
#include "rt.h"
#include "rt_path.h"
#include <string.h>

/* The same on each path, sealed apart: the peer takes whichever comes first. */
static void say(struct rt *rt, const struct ips_pair_msg *m, uint64_t now_ns) {
  uint8_t plain[IPS_PAIR_BYTES], sealed[IPS_PAIR_BYTES + IPS_SEAL_OVERHEAD];
  ips_pair_encode(m, plain);
  for (uint32_t i = 0; i < rt->set.n_paths; i++) {
    if (rt->path[i] < 0) continue;
    size_t n = ips_seal_wrap(rt->seal, IPS_SEAL_PAIR, plain, sizeof plain, now_ns, sealed);
    if (!n) return; /* no stream is open yet: rt_say_due greets */
    rt_path_send(rt->path[i], sealed, n);
    rt->state.sent++;
  }
}

static void changed(struct rt *rt, const struct ips_pair_action *a, uint64_t now_ns) {
  rt->state.changes++;
  rt->state.since_ns = now_ns;
  rt->state.old_state = a->from;
  rt->state.state = a->to;
  rt->state.reason = a->reason;
}

/* first: before anything is done, so that the table is ours when the lease comes; else after, when it is gone. */
static void tell_role(struct rt *rt, bool first) {
  bool is_active = rt->machine.state == IPS_PAIR_ACTIVE;
  uint64_t role = rt->machine.highest.counter << 1 | is_active;
  if (!rt->host.role || role == rt->told_role || is_active != first) return;
  rt->told_role = role;
  rt->host.role(rt->host.flows, is_active, role >> 1);
}

void rt_carry_out(struct rt *rt, uint64_t now_ns) {
  tell_role(rt, true);
  for (uint32_t i = 0; i < rt->actions.n; i++) {
    const struct ips_pair_action *a = &rt->actions.a[i];
    switch (a->kind) {
      case IPS_PAIR_SEND: say(rt, &a->msg, now_ns); break;
      case IPS_PAIR_LEASE: ips_tables_set_lease(rt->host.tables, a->value); break;
      case IPS_PAIR_PERSIST: rt_epoch_want(&rt->epoch, a->value); break;
      case IPS_PAIR_STATE: changed(rt, a, now_ns); break;
      case IPS_PAIR_ANNOUNCE: rt_vip_announce(rt); break;
      default: break; /* without a witness none is asked */
    }
  }
  rt->actions.n = 0;
  tell_role(rt, false);
}

/* Handshakes take one path after the other: any of them may be cut. */
void rt_say_due(struct rt *rt, uint64_t now_ns) {
  uint8_t out[IPS_SEAL_DATAGRAM];
  for (size_t n; (n = ips_seal_tick(rt->seal, now_ns, out)) != 0;) {
    for (uint32_t tried = 0; tried < rt->set.n_paths; tried++) {
      int fd = rt->path[rt->hello_path++ % rt->set.n_paths];
      if (fd < 0) continue;
      rt_path_send(fd, out, n);
      break;
    }
    rt->state.sent++;
  }
}
