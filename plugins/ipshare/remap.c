/* remap.c: how packets of the remaps' channels come to us (decision 0055): this node's addresses in them are entries of
 * the service table, as tunnel addresses are (decision 0009), while there is a remap that has them. They have a source
 * of their own in the FIB: a prefix may be a local network's or a tunnel's at the same time. */
#define _GNU_SOURCE
#include "flows.h"
#include "../../native/flows/flows_remap.h"

static void
add_ends (ipshare_diverted_t **to, const struct ips_ctl_remap *remap)
{
  const struct ips_remap_channel *c = &remap->channel;
  u32 len = c->encap == IPS_ENCAP_NONE ? remap->prefix_len : c->family == 4 ? 32 : 128;
  for (u32 mark = 0; mark < 2; mark++)
    ipshare_diverted_add (to, c->family, len, c->local[mark], IPS_INNER, false);
}

void
ipshare_remap_channels (ipshare_main_t *im)
{
  const struct flows_remap_set *s = im->flows->remaps;
  ipshare_diverted_t *wanted = NULL, *had = im->channels;
  for (u32 i = 0; s && i < s->n; i++)
    add_ends (&wanted, &s->at[i]->set);
  wanted = ipshare_diverted_sorted (wanted);
  ipshare_divert (im, im->channel_source, im->service_fib, had, wanted, false);
  ipshare_divert (im, im->channel_source, im->service_fib, had, wanted, true);
  im->channels = wanted;
  vec_free (had);
}
