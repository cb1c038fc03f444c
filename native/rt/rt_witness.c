/* rt_witness.c: asks the witness over UDP, in a sealed channel of its own: no answer can be forged or come twice.
 *
 * Nothing here waits. A question that is lost is asked again by the machine; an answer names the question by its time, so
 * that a late one counts from when it was asked. The pair's own channel knows nothing of this one: another key, so the
 * witness cannot speak for a node.
 */
#include "rt_witness.h"
#include "../ips_seal.h"
#include "../ips_witness_api.h"
#include "rt_path.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 2048, DATAGRAMS = 64 };
#define RETRY_NS 500000000ull

bool rt_witness_start(struct rt_witness *w, const struct ips_ctl_pair *set, uint64_t boot, ips_random_fn random) {
  *w = (struct rt_witness){.fd = -1};
  if (!set->witness.family) return true;
  struct ips_seal_config c = {.boot = boot, .n_keys = 1, .key_numbers = {1}};
  c.hello_ns = set->witness.ttl_ns / 20;
  c.silence_ns = set->witness.ttl_ns;
  snprintf((char *)c.id, sizeof c.id, "%u", set->node_id);
  snprintf((char *)c.peer, sizeof c.peer, "witness");
  memcpy(c.keys[0], set->witness.key, sizeof c.keys[0]);
  w->seal = ips_seal_new(&c, random, NULL);
  explicit_bzero(&c, sizeof c);
  return w->seal != NULL;
}

void rt_witness_stop(struct rt_witness *w) {
  if (w->fd >= 0) close(w->fd);
  ips_seal_free(w->seal);
  *w = (struct rt_witness){.fd = -1};
}

void rt_witness_say(struct rt_witness *w, const struct ips_pair_action *a, uint64_t ttl_ns, uint64_t now_ns) {
  uint8_t plain[IPS_WITNESS_BYTES], sealed[IPS_WITNESS_BYTES + IPS_SEAL_OVERHEAD];
  if (!w->seal || w->fd < 0) return;
  bool asks = a->kind == IPS_PAIR_ASK;
  struct ips_witness_msg m = {.kind = asks ? IPS_WITNESS_ASK : IPS_WITNESS_RELEASE, .counter = a->value,
                              .asked_ns = asks ? a->at_ns : now_ns, .ttl_ns = ttl_ns};
  ips_witness_encode(&m, plain);
  size_t n = ips_seal_wrap(w->seal, IPS_SEAL_WITNESS, plain, sizeof plain, now_ns, sealed);
  if (n) rt_path_send(w->fd, sealed, n);
}

void rt_witness_tick(struct rt_witness *w, const struct ips_ctl_pair_witness *set, uint64_t now_ns) {
  uint8_t out[IPS_SEAL_DATAGRAM];
  if (!w->seal) return;
  if (w->fd < 0 && now_ns >= w->retry_ns) {
    struct ips_ctl_pair_path path = {.remote_port = set->port, .family = set->family};
    memcpy(path.remote, set->address, sizeof path.remote);
    w->fd = rt_path_open(&path);
    w->retry_ns = now_ns + RETRY_NS;
  }
  for (size_t n; w->fd >= 0 && (n = ips_seal_tick(w->seal, now_ns, out)) != 0;) rt_path_send(w->fd, out, n);
}

bool rt_witness_hear(struct rt_witness *w, struct ips_witness_msg *m, uint64_t now_ns) {
  uint8_t bytes[ROOM], plain[ROOM], type;
  size_t plain_n;
  ssize_t n;
  for (int i = 0; w->fd >= 0 && i < DATAGRAMS && (n = rt_path_receive(w->fd, bytes, sizeof bytes)) >= 0; i++) {
    if (ips_seal_open(w->seal, bytes, (size_t)n, now_ns, &type, plain, &plain_n) != IPS_SEAL_OK_) continue;
    if (type != IPS_SEAL_WITNESS || !ips_witness_decode(plain, plain_n, m)) continue;
    if (m->kind == IPS_WITNESS_ANSWER) return true;
  }
  return false;
}

uint32_t rt_witness_notes(const struct rt_witness *w, uint64_t now_ns) {
  struct ips_seal_info info;
  if (!w->seal) return 0;
  ips_seal_info(w->seal, now_ns, &info);
  return info.alive ? 0 : IPS_CTL_PAIR_NO_WITNESS;
}
