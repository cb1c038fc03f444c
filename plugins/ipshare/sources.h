/* sources.h: whose packets the features on interfaces take, by their source: replies of devices (S1.5), inside hosts of a
 * NAT (S3.5, decision 0040). Whatever is not theirs goes on as if we were not there.
 *
 * Of a NAT's inside: a packet from an inside prefix, by an interface of that NAT, to nobody inside, to no end point's
 * local network, not to VPP itself, and to an address that routers forward to at all.
 */
#ifndef __included_ipshare_sources_h__
#define __included_ipshare_sources_h__

#include <ipshare/ipshare.h>
#include <vnet/dpo/load_balance.h>
#include <vnet/fib/ip4_fib.h>
#include <vnet/fib/ip6_fib.h>
#include <vnet/ip/ip.h>
#include "../../native/ips_napt.h"

/* What a table has for a destination. */
static_always_inline const dpo_id_t *
dpo_to (u32 fib, const u8 *address, bool is4)
{
  index_t lbi = is4 ? ip4_fib_forwarding_lookup (fib, (const ip4_address_t *) address) :
		      ip6_fib_table_fwding_lookup (fib, (const ip6_address_t *) address);
  return load_balance_get_bucket_i (load_balance_get (lbi), 0);
}

static_always_inline u32
fib_of (vlib_buffer_t *b, bool is4)
{
  u32 sw_if_index = vnet_buffer (b)->sw_if_index[VLIB_RX];
  return is4 ? vec_elt (ip4_main.fib_index_by_sw_if_index, sw_if_index) :
	       vec_elt (ip6_main.fib_index_by_sw_if_index, sw_if_index);
}

/* To an address of VPP itself: the gateway of the devices, which speak to it with their Global IPs as well. */
static_always_inline bool
is_for_vpp (vlib_buffer_t *b, bool is4)
{
  const u8 *to = ips_field_at (vlib_buffer_get_current (b), is4 ? 4 : 6, IPS_DST);
  if (!is4 && ip6_address_is_link_local_unicast ((const ip6_address_t *) to))
    return true;
  return dpo_to (fib_of (b, is4), to, is4)->dpoi_type == DPO_RECEIVE;
}

static_always_inline bool
has_header (const vlib_buffer_t *b, bool is4)
{
  return b->current_length >= (is4 ? sizeof (ip4_header_t) : sizeof (ip6_header_t));
}

/* Has the packet a source that we translate or tunnel? *side: as what. */
static_always_inline bool
is_reply (const ipshare_main_t *im, const struct ips_worker *core, vlib_buffer_t *b, enum ips_side *side, bool is4)
{
  struct ips_hit h;
  u32 sw_if_index = vnet_buffer (b)->sw_if_index[VLIB_RX];
  /* 0: the operator switched the feature on, not we */
  u8 set = PREDICT_TRUE (sw_if_index < vec_len (im->reply_side_by_interface)) ?
	     im->reply_side_by_interface[sw_if_index] : 0;
  *side = set == 1 + IPS_OUTER ? IPS_OUTER : IPS_INNER;
  if (!set || !core->root || !has_header (b, is4))
    return false;
  const u8 *from = ips_field_at (vlib_buffer_get_current (b), is4 ? 4 : 6, IPS_SRC);
  bool is_ours = *side == IPS_INNER ? ips_in_network (core->root, is4 ? 4 : 6, from) :
				      ips_find_local (core->root, is4 ? 4 : 6, from, &h);
  return is_ours && !is_for_vpp (b, is4);
}

static_always_inline bool
has_realm (const u16 *realms, u16 realm)
{
  for (u32 i = 0; i < vec_len (realms); i++)
    if (realms[i] == realm)
      return true;
  return false;
}

/* A local network of an end point here, or a tunnel's end. */
static_always_inline bool
is_local (const ipshare_main_t *im, const u8 *to, bool is4)
{
  const dpo_id_t *dpo = dpo_to (im->service_fib[is4 ? FIB_PROTOCOL_IP4 : FIB_PROTOCOL_IP6], to, is4);
  return dpo->dpoi_type == im->dpo_types[IPS_INNER] && !pool_elt_at_index (im->dpos, dpo->dpoi_index)->is_peer;
}

/* Before the engine knows who is inside, nobody passes: untranslated it must not leave. */
static_always_inline bool
is_inside (const ipshare_main_t *im, const struct ips_worker *core, vlib_buffer_t *b, bool is4)
{
  u32 sw_if_index = vnet_buffer (b)->sw_if_index[VLIB_RX], family = is4 ? 4 : 6;
  const u16 *realms = sw_if_index < vec_len (im->realms_by_interface) ? im->realms_by_interface[sw_if_index] : NULL;
  if (!realms || !has_header (b, is4) || b->flags & IPSHARE_BUFFER_F)
    return false;
  const u8 *ip = vlib_buffer_get_current (b), *to = ips_field_at (ip, family, IPS_DST);
  if (core->napt)
    {
      const struct ips_napt_group *group = ips_napt_group (core->napt, family, ips_field_at (ip, family, IPS_SRC));
      if (!group || !has_realm (realms, group->realm) || ips_napt_group (core->napt, family, to))
	return false;
    }
  return !ips_bad_scope (to, family) && !is_for_vpp (b, is4) && !is_local (im, to, is4);
}

/* Translated by NAT on its way out: the Global Network that it may go to comes after that, and is no loop. */
static_always_inline bool
is_from_nat (const struct ips_pkt *p, int verdict, bool is_feature)
{
  return is_feature && verdict == IPS_OK && p->counter == IPS_NONE && p->endpoint == IPS_NONE;
}

#endif
