/* why.c: what would happen to this packet? The live generation answers through a worker of
 * its own, so that no counter of the data path moves and nothing is sent. Its verdict is that of
 * this moment: learned path MTUs count, and its own ICMP errors have their own rate limit. */
#define _GNU_SOURCE
#include "../flows/flows_remap.h"
#include "../ips_dispatch_api.h"
#include "../ips_worker.h"
#include "control.h"
#include <stdlib.h>

enum { LONGEST = 40 + 65535 }; /* bytes of an IPv6 packet (RFC 8200 3) */
struct collected { uint8_t *out; uint32_t used, n, omitted; };
static struct collected *collecting; /* main thread only */

static void collect(const struct ips_pkt *p, int kind) {
  struct ips_ctl_packet head = {.bytes = p->len, .kind = (uint8_t)kind, .gso_type = p->gso_type,
                                .csum = p->csum, .gso_size = p->gso_size, .csum_start = p->csum_start,
                                .csum_offset = p->csum_offset};
  struct collected *c = collecting;
  if (c->n == IPS_CTL_WHY_PACKETS || c->used + sizeof head + p->len > OUT_ROOM) {
    c->omitted++;
    return;
  }
  memcpy(c->out + c->used, &head, sizeof head);
  memcpy(c->out + c->used + sizeof head, p->data, p->len);
  c->used += (uint32_t)sizeof head + p->len;
  c->n++;
}

void why_emit(void *arg, struct ips_pkt *p, int kind) {
  (void)arg;
  if (collecting && kind != IPS_EMIT_COPY) collect(p, kind);
}

static void ask(struct ips_worker *w, const struct flows *f, int side, struct ips_pkt *p,
                struct ips_ctl_why *why) {
  ips_worker_begin(w, clock_ns(CLOCK_BOOTTIME));
  const struct flows_remap_set *remaps = f->remaps;
  const struct ips_clusters *clusters = f->clusters;
  w->napt = f->napt;
  if (remaps) {
    w->sessions = f->sessions; /* looked at alone */
    ips_worker_set_remaps(w, remaps->core);
  }
  if (clusters) {
    w->sessions = f->sessions;
    ips_worker_set_clusters(w, clusters);
  }
  w->asks = true;
  w->would_open = false;
  int verdict = side == IPS_CTL_OUTER ? ips_outer(w, p) : ips_inner(w, p);
  *why = (struct ips_ctl_why){.generation = w->root ? w->root->generation : 0, .verdict = (uint32_t)verdict,
                              .disposition = ips_dispositions[verdict], .counter = p->counter,
                              .endpoint = p->endpoint};
  if (w->would_open) collecting->omitted++; /* its public end is chosen when it comes */
  else if (ips_dispositions[verdict] == IPS_SEND) collect(p, IPS_EMIT_PACKET);
  w->napt = NULL;
  w->sessions = NULL;
  ips_worker_set_remaps(w, NULL);
  ips_worker_set_clusters(w, NULL);
  ips_worker_end(w);
}

int op_why(struct call *c) {
  struct ips_ctl_packet head;
  if (c->head.bytes < sizeof head)
    return refuse(c, IPS_CTL_BAD_LENGTH, "a packet's description is cut short");
  memcpy(&head, c->payload, sizeof head);
  if (head.bytes != c->head.bytes - sizeof head || head.bytes > LONGEST)
    return refuse(c, IPS_CTL_BAD_LENGTH, "the packet announces %u bytes and has %zu", head.bytes,
                  c->head.bytes - sizeof head);
  if (head.side > IPS_CTL_INNER) return refuse(c, IPS_CTL_BAD_ARGUMENT, "side is 0 (outer) or 1 (inner)");
  if (head.csum > IPS_CSUM_PARTIAL || head.gso_type > IPS_GSO_UDP)
    return refuse(c, IPS_CTL_BAD_ARGUMENT, "unknown kind of checksum or super-packet");
  uint8_t *bytes = malloc(HEADROOM + PACKET_ROOM);
  if (!bytes) return refuse(c, IPS_CTL_SYSTEM, "out of memory");
  memcpy(bytes + HEADROOM, c->payload + sizeof head, head.bytes);
  struct ips_pkt p = {.data = bytes + HEADROOM, .len = head.bytes, .total_len = head.bytes,
                      .headroom = HEADROOM, .gso_size = head.gso_size, .gso_type = head.gso_type,
                      .csum = head.csum, .csum_start = head.csum_start, .csum_offset = head.csum_offset,
                      .counter = IPS_NONE, .endpoint = IPS_NONE};
  struct ips_ctl_why why;
  struct collected found = {.out = c->out, .used = sizeof why};
  collecting = &found;
  ask(c->control->engine->why, c->control->engine->flows, head.side, &p, &why);
  collecting = NULL;
  free(bytes);
  why.n_packets = found.n;
  why.omitted = found.omitted;
  memcpy(c->out, &why, sizeof why);
  c->out_bytes = found.used;
  return IPS_CTL_OK;
}
