/* rt_vip.c: the VIPs on their links: answered for and announced while the lease runs, by nobody else (S2.3).
 *
 * No VIP is an address of the kernel, so nothing answers for one when this process is dead, stopped or not active; and a
 * takeover adds no address and waits for no duplicate address detection. A router whose cache somebody else has
 * filled hears from us again, at once but not more often than every second (LESSONS.md 22).
 */
#include "../ips_vip.h"
#include "rt.h"
#include <string.h>

#define CONTEST_NS 1000000000ull

static bool has_lease(const struct rt *rt) { return rt_now_ns() < rt->machine.forward_until_ns; }

static struct ips_vip vip_of(const struct rt *rt, uint32_t i) {
  const struct rt_vip *v = &rt->vips[i];
  struct ips_vip out = {.family = v->rec.family, .router = 1};
  memcpy(out.address, v->rec.address, sizeof out.address);
  memcpy(out.mac, rt->links[v->link].mac, sizeof out.mac);
  return out;
}

static void send_on(struct rt *rt, uint32_t link, const uint8_t *frame, size_t n) {
  if (!rt->host.links->send(rt->host.links_arg, &rt->links[link], frame, n)) { /* asked, or announced, again */ }
}

static void announce(struct rt *rt, uint32_t i) {
  uint8_t frame[IPS_VIP_ROOM];
  struct ips_vip v = vip_of(rt, i);
  send_on(rt, rt->vips[i].link, frame, ips_vip_announce(&v, frame));
  rt->state.announcements++;
}

void rt_vip_announce(struct rt *rt) {
  for (uint32_t i = 0; has_lease(rt) && i < rt->set.n_vips; i++) announce(rt, i);
}

void rt_vip_answer(struct rt *rt, uint32_t link, const uint8_t *frame, size_t n) {
  uint8_t out[IPS_VIP_ROOM];
  struct ips_vip here[IPS_CTL_PAIR_VIPS + 2];
  uint32_t number[IPS_CTL_PAIR_VIPS], n_here = 0, which;
  size_t size;
  for (uint32_t i = 0; i < rt->set.n_vips; i++)
    if (rt->vips[i].link == link) here[n_here] = vip_of(rt, i), number[n_here++] = i;
  uint32_t n_vips = n_here;
  n_here += rt_public_find(rt, link, frame, n, here + n_here);
  int result = ips_vip_answer(here, n_here, frame, n, out, &size, &which);
  if (result == IPS_VIP_NOT_OURS || !has_lease(rt)) return;
  if (result == IPS_VIP_ANSWERED) {
    send_on(rt, link, out, size);
    rt->state.vip_answers++;
    return;
  }
  rt->state.vip_refused++;
  if (result != IPS_VIP_CONFLICT || rt_now_ns() - rt->contested_ns < CONTEST_NS) return;
  rt->contested_ns = rt_now_ns();
  if (which < n_vips) announce(rt, number[which]);
  else rt_public_say(rt, link, &here[which]);
}
