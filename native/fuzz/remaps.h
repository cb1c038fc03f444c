/* remaps.h: remaps for fuzz_forward: one address is taken, left, re-addressed; by each kind of channel.
 *
 * Set 1: taken by IP-in-IP from peer 0; set 2: taken, and left to peer 1 by GUE, replies through the channel; set
 * 3: taken by re-addressing and left, QUIC; and one of IPv6 in all of them. The tables of flows are small: full.
 */
#ifndef FUZZ_REMAPS_H
#define FUZZ_REMAPS_H
#include "../tests/check.h"
#include "ips_frag.h"
#include "ips_remap_api.h"

enum { REMAP_SETS = 4, REMAP_SEED = 5 };

static struct ips_remaps *remap_sets[REMAP_SETS]; /* 0: none */
static struct ips_sessions *remap_sessions;
static uint64_t remap_counters[IPS_REMAP_COUNTERS];

static struct ips_sessions *remap_table(uint8_t standby) {
  const struct ips_sessions_config c = {.sessions = 64, .half_open = 32, .half_open_per_source = 32,
                                        .standby = standby, .seed = REMAP_SEED, .now_ns = 1000000000u};
  struct ips_sessions *t = ips_sessions_new(&c);
  CHECK(t);
  return t;
}

static struct ips_remap_rec remap_rec(uint64_t id, uint8_t role, uint8_t peer, uint8_t encap, uint32_t flags) {
  struct ips_remap_rec r = {
    .id = id, .prefix = {203, 0, 113}, .prefix_len = 29, .family = 4, .role = role, .peer = peer, .flags = flags,
    .channel = {.encap = encap, .family = 4, .gue_port = encap == IPS_ENCAP_GUE ? 6080 : 0, .mtu = 1400,
                .local = {{192, 0, 2, 32}, {192, 0, 2, 32}}, .remote = {{192, 0, 2, 48}, {192, 0, 2, 48}}}};
  for (unsigned m = 0; m < 2; m++) {
    uint8_t last = (uint8_t)(peer * 8 + (encap == IPS_ENCAP_GUE ? 2 : m));
    r.channel.local[m][3] = (uint8_t)(32 + last), r.channel.remote[m][3] = (uint8_t)(64 + last);
    if (encap == IPS_ENCAP_NONE) r.channel.local[m][3] = (uint8_t)(128 + 8 * m), r.channel.remote[m][3] = (uint8_t)(160 + 8 * m);
  }
  return r;
}

/* Flows that the giver is said to have: UDP and TCP from 198.51.100.1:1000 to each address, port 7. */
static void remap_know(struct ips_sessions *t) {
  for (uint8_t host = 0; host < 7; host++)
    for (unsigned tcp = 0; tcp < 2; tcp++) {
      struct ips_session_rec r = {.flow = {.src = {198, 51, 100, 1}, .dst = {203, 0, 113, host}, .src_port = 1000,
                                           .dst_port = 7, .family = 4, .proto = tcp ? 6 : 17},
                                  .kind = IPS_SESSION_TRACK, .state = IPS_STATE_OPEN, .version = 1};
      ips_sessions_apply(t, 0, IPS_SESSION_UPSERT, &r, 1000000000u, NULL);
    }
}

static void make_remaps(void) {
  struct ips_frag_table *frags = ips_frag_new(64, 32, 512, 3);
  const struct ips_remap_rec recs[REMAP_SETS][3] = {
    [1] = {remap_rec(1, IPS_REMAP_TAKING, 0, IPS_ENCAP_IPIP, 0)},
    [2] = {remap_rec(1, IPS_REMAP_TAKING, 0, IPS_ENCAP_IPIP, 0),
           remap_rec(2, IPS_REMAP_LEAVING, 1, IPS_ENCAP_GUE, IPS_REMAP_REPLIES)},
    [3] = {remap_rec(1, IPS_REMAP_TAKING, 0, IPS_ENCAP_NONE, IPS_REMAP_QUIC),
           remap_rec(2, IPS_REMAP_LEAVING, 1, IPS_ENCAP_IPIP, 0)}};
  remap_sessions = remap_table(0);
  for (unsigned i = 1; i < REMAP_SETS; i++) {
    struct ips_remap_state states[3] = {{0}};
    struct ips_remap_rec all[3];
    size_t n = i == 1 ? 1 : 2;
    memcpy(all, recs[i], sizeof all);
    all[n] = remap_rec(9, IPS_REMAP_TAKING, 2, IPS_ENCAP_GUE, 0); /* IPv6 inside, IPv4 outside */
    all[n].family = 6, all[n].prefix_len = 64;
    memcpy(all[n].prefix, (const uint8_t[16]){0x20, 1, 0xd, 0xb8, 1}, 16);
    for (size_t k = 0; k <= n; k++) {
      states[k].counters = remap_counters;
      if (all[k].role == IPS_REMAP_TAKING) remap_know(states[k].followed = remap_table(1));
    }
    remap_sets[i] = ips_remaps_new(all, states, n + 1, frags);
    CHECK(remap_sets[i]);
  }
}
#endif
