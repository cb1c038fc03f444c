/* nat.c: how packets of a NAT come to us (decision 0040): those to addresses of its pools by entries of both tables,
 * those from inside by a feature of the interfaces that the inside is behind (sources.h). */
#include "flows.h"
#include <vnet/feature/feature.h>

void
ipshare_nat_pools (ipshare_main_t *im, const struct ips_ctl_flows *set)
{
  ipshare_diverted_t *wanted = ipshare_diverted_of_pools (set), *had = im->pools;
  bool is_one_table = im->service_table == im->delivery_table;
  for (u32 table = 0; table < (is_one_table ? 1 : 2); table++)
    {
      const u32 *fib = table ? im->delivery_fib : im->service_fib;
      ipshare_divert (im, im->fib_source, fib, had, wanted, false);
      ipshare_divert (im, im->fib_source, fib, had, wanted, true);
    }
  im->pools = wanted;
  vec_free (had);
}

static void
enable_features (u32 sw_if_index, bool enable)
{
  vnet_feature_enable_disable ("ip4-unicast", "ipshare-nat-ip4", sw_if_index, enable, 0, 0);
  vnet_feature_enable_disable ("ip6-unicast", "ipshare-nat-ip6", sw_if_index, enable, 0, 0);
}

int
ipshare_nat_interface (ipshare_main_t *im, u32 sw_if_index, u16 realm, bool enable)
{
  vec_validate (im->realms_by_interface, sw_if_index);
  u16 **realms = im->realms_by_interface + sw_if_index;
  bool had_some = vec_len (*realms);
  u32 at = vec_search (*realms, realm);
  if (enable && at == ~0)
    vec_add1 (*realms, realm);
  if (!enable && at != ~0)
    vec_del1 (*realms, at);
  if (!vec_len (*realms))
    vec_free (*realms);
  if (had_some != (vec_len (*realms) != 0))
    enable_features (sw_if_index, !had_some);
  return 0;
}

/* Its number may be another interface's tomorrow. */
void
ipshare_nat_interface_gone (ipshare_main_t *im, u32 sw_if_index)
{
  while (sw_if_index < vec_len (im->realms_by_interface) && vec_len (im->realms_by_interface[sw_if_index]))
    ipshare_nat_interface (im, sw_if_index, im->realms_by_interface[sw_if_index][0], false);
}
