/* why.c: what would happen to this packet? The live generation answers through a worker of its own, so that no
 * counter of the data path moves and nothing is sent. Main thread. */
#include "flows.h"

enum { ROOM = 256 << 10, PACKETS = 128 };

static struct
{
  u8 *data;
  u32 n, omitted;
} collected;

static void
collect (const struct ips_pkt *p, int kind)
{
  if (collected.n == PACKETS || vec_len (collected.data) + 4 + p->len > ROOM || p->len > 65535)
    {
      collected.omitted++;
      return;
    }
  u8 head[4] = { kind, 0, p->len >> 8, p->len };
  vec_add (collected.data, head, sizeof head);
  vec_add (collected.data, p->data, p->len);
  collected.n++;
}

void
ipshare_why_emit (CLIB_UNUSED (void *arg), struct ips_pkt *p, int kind)
{
  if (kind != IPS_EMIT_COPY)
    collect (p, kind);
}

u8 *
ipshare_why (ipshare_main_t *im, int side, struct ips_pkt *p, u32 *verdict, u64 *generation, u32 *n, u32 *omitted)
{
  struct ips_worker *w = im->why;
  collected.data = NULL;
  collected.n = collected.omitted = 0;
  ips_worker_begin (w, ipshare_now_ns ());
  ipshare_flows_enter (im);
  w->would_open = false;
  *verdict = side == IPS_OUTER ? ips_outer (w, p) : ips_inner (w, p);
  *generation = w->root ? w->root->generation : 0;
  if (w->would_open)
    collected.omitted++; /* its public end is chosen when it comes */
  else if (ips_dispositions[*verdict] == IPS_SEND)
    collect (p, IPS_EMIT_PACKET);
  ipshare_flows_leave (im);
  ips_worker_end (w);
  *n = collected.n;
  *omitted = collected.omitted;
  return collected.data;
}
