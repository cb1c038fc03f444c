/* rt_public.c: on-link public addresses, by prefix: answered for and announced while the lease runs (SYSTEMS.md S3.9).
 *
 * No record for each address: a frame names at most two, and they are looked for among the prefixes. All are announced
 * as VIPs are (rt_vip.c), at most BATCH in a millisecond, so that 65,536 of them take a second and no switch is
 * flooded; heartbeats and answers go between. What finds no room on its way out is said a millisecond later. An announcement that is due while one runs begins when that has ended.
 */
#include "rt.h"
#include <string.h>

enum { BATCH = 64 };
#define PACE_NS 1000000ull

static struct ips_vip vip_on(const struct rt *rt, uint32_t link, uint8_t family, const uint8_t *address) {
  struct ips_vip v = {.family = family, .router = 1};
  memcpy(v.address, address, family == 4 ? 4 : 16);
  memcpy(v.mac, rt->links[link].mac, sizeof v.mac);
  return v;
}

uint32_t rt_public_find(const struct rt *rt, uint32_t link, const uint8_t *frame, size_t n, struct ips_vip *out) {
  uint8_t addresses[2][16], family = 0;
  if (!rt->set.n_publics) return 0;
  uint32_t named = ips_vip_addresses(frame, n, addresses, &family), found = 0;
  for (uint32_t i = 0; i < named; i++)
    for (uint32_t p = 0; p < rt->set.n_publics; p++)
      if (rt->public_link[p] == link && rt->set.publics[p].family == family &&
          ips_vip_within(rt->set.publics[p].address, rt->set.publics[p].prefix_len, addresses[i])) {
        out[found++] = vip_on(rt, link, family, addresses[i]);
        break;
      }
  return found;
}

bool rt_public_say(struct rt *rt, uint32_t link, const struct ips_vip *v) {
  uint8_t frame[IPS_VIP_ROOM];
  if (!rt->host.links->send(rt->host.links_arg, &rt->links[link], frame, ips_vip_announce(v, frame))) return false;
  rt->state.announcements++;
  return true;
}

void rt_public_announce(struct rt *rt) {
  if (!rt->set.n_publics) return;
  if (rt->walk.runs) rt->walk.again = true;
  else rt->walk = (struct rt_walk){.runs = true};
}

/* False: no room; this one is the next again. */
static bool say_next(struct rt *rt) {
  const struct ips_ctl_pair_public *p = &rt->set.publics[rt->walk.prefix];
  uint32_t bytes = p->family == 4 ? 4 : 16, host_bits = bytes * 8 - p->prefix_len;
  uint8_t address[16];
  memcpy(address, p->address, sizeof address);
  address[bytes - 1] |= (uint8_t)rt->walk.address;
  address[bytes - 2] |= (uint8_t)(rt->walk.address >> 8);
  struct ips_vip v = vip_on(rt, rt->public_link[rt->walk.prefix], p->family, address);
  if (!rt_public_say(rt, rt->public_link[rt->walk.prefix], &v)) return false;
  if (++rt->walk.address >> host_bits == 0) return true;
  rt->walk.address = 0;
  if (++rt->walk.prefix < rt->set.n_publics) return true;
  rt->walk = (struct rt_walk){.runs = rt->walk.again, .next_ns = rt->walk.next_ns};
  return true;
}

void rt_public_turn(struct rt *rt, uint64_t now_ns) {
  if (!rt->walk.runs || now_ns < rt->walk.next_ns) return;
  if (now_ns >= rt->machine.forward_until_ns) { /* the next lease begins with an announcement */
    rt->walk.runs = false;
    return;
  }
  rt->walk.next_ns = now_ns + PACE_NS;
  for (int i = 0; rt->walk.runs && i < BATCH && say_next(rt); i++);
}
