/* vips.c: neighbours' questions about VIPs, taken out of the graph.
 *
 *   arp -> ipshare-vip-arp           on interfaces of VIPs, before VPP's own answers
 *   ip6-unicast, ip6-multicast -> ipshare-vip-nd
 *
 * Who asks for a VIP is answered by the real-time thread, while the lease runs, or by nobody: VPP, which may answer for
 * whole subnets, does not see the question. What claims a VIP goes on as well, for VPP's own tables of neighbours.
 * What claims a public address does not: a host route to the peer, which announces all of them, would be before the
 * plugin's entry.
 */
#include "pair.h"
#include <vnet/ethernet/arp_packet.h>
#include <vnet/ethernet/ethernet.h>
#include <vnet/feature/feature.h>
#include <vnet/ip-neighbor/ip_neighbor.h>
#include <vnet/ip/icmp46_packet.h>
#include <vnet/ip/ip6_packet.h>

enum
{
  ARP_BYTES = 28,
  AT_SENDER = 14, /* offsets of the addresses */
  AT_TARGET = 24,
  ND_BYTES = 64, /* IPv6 header, type, flags, target */
  ND_TARGET = 48,
};

typedef enum
{
  VIP_NEXT_DROP,
  VIP_N_NEXT,
} vip_next_t;

#define foreach_vip_error                                                                                             \
  _ (ASKED, "questions about a VIP")                                                                                  \
  _ (CLAIMED, "claims to a VIP")                                                                                      \
  _ (LOST, "questions or claims that found no room")

typedef enum
{
#define _(name, text) VIP_ERROR_##name,
  foreach_vip_error
#undef _
    VIP_N_ERROR,
} vip_error_t;

static char *vip_error_strings[] = {
#define _(name, text) text,
  foreach_vip_error
#undef _
};

static ipshare_port_t *
port_of (vlib_buffer_t *b)
{
  ipshare_ports_t *ports = ipshare_pair.shown;
  for (u32 i = 0; ports && i < ports->n; i++)
    if (ports->at[i].sw_if_index == vnet_buffer (b)->sw_if_index[VLIB_RX])
      return ports->at + i;
  return NULL;
}

/* One of those that move with the role. */
static bool
is_public_of (const ipshare_ports_t *ports, const ipshare_port_t *port, u8 family, const u8 *address)
{
  for (u32 i = 0; i < ports->n_publics; i++)
    {
      const ipshare_public_t *p = ports->publics + i;
      if (ports->at + p->port == port && p->family == family && ips_vip_within (p->address, p->prefix_len, address))
	return true;
    }
  return false;
}

static bool
is_public (const ipshare_port_t *port, u8 family, const u8 *address)
{
  return is_public_of (ipshare_pair.shown, port, family, address);
}

static bool
is_vip (const ipshare_port_t *port, u8 family, const u8 *address)
{
  for (u32 i = 0; i < port->n_vips; i++)
    if (port->vips[i].family == family && memcmp (port->vips[i].address, address, family == 4 ? 4 : 16) == 0)
      return true;
  return is_public (port, family, address);
}

/* Of a claim: whether VPP may hear of it. */
static bool
is_vpps_too (const ipshare_port_t *port, vlib_buffer_t *b, bool is_arp)
{
  const u8 *p = vlib_buffer_get_current (b);
  return !is_public (port, is_arp ? 4 : 6, p + (is_arp ? AT_SENDER : ND_TARGET));
}

/* To the thread, as an untagged Ethernet frame. `n`: bytes behind the Ethernet header. */
static bool
put (ipshare_port_t *port, vlib_buffer_t *b, u16 type, u32 n)
{
  const ethernet_header_t *eth = ethernet_buffer_get_header (b);
  struct rt_place *p = n + sizeof *eth <= RT_RING_BYTES ? rt_ring_claim (&port->in) : NULL;
  if (!p)
    return false;
  ethernet_header_t *to = (ethernet_header_t *) p->bytes;
  *to = *eth;
  to->type = clib_host_to_net_u16 (type);
  clib_memcpy (to + 1, vlib_buffer_get_current (b), n);
  p->n = sizeof *eth + n;
  rt_ring_hand_over (p);
  rt_signal (port->frames);
  return true;
}

/* What a packet has to do with a VIP: ASKED, CLAIMED, or VIP_N_ERROR: nothing. *n: bytes of it. */
static vip_error_t
look_at_arp (const ipshare_port_t *port, vlib_buffer_t *b, u32 *n)
{
  const u8 *arp = vlib_buffer_get_current (b);
  *n = ARP_BYTES;
  if (b->current_length < ARP_BYTES)
    return VIP_N_ERROR;
  if (is_vip (port, 4, arp + AT_SENDER))
    return VIP_ERROR_CLAIMED;
  return arp[7] == 1 && is_vip (port, 4, arp + AT_TARGET) ? VIP_ERROR_ASKED : VIP_N_ERROR;
}

static vip_error_t
look_at_nd (const ipshare_port_t *port, vlib_buffer_t *b, u32 *n)
{
  const ip6_header_t *ip = vlib_buffer_get_current (b);
  const icmp46_header_t *icmp = (const void *) (ip + 1);
  if (b->current_length < ND_BYTES || ip->protocol != IP_PROTOCOL_ICMP6 || ip->hop_limit != 255)
    return VIP_N_ERROR;
  *n = sizeof *ip + clib_net_to_host_u16 (ip->payload_length);
  if (*n > b->current_length || !is_vip (port, 6, (const u8 *) ip + ND_TARGET))
    return VIP_N_ERROR;
  return icmp->type == ICMP6_neighbor_solicitation  ? VIP_ERROR_ASKED :
	 icmp->type == ICMP6_neighbor_advertisement ? VIP_ERROR_CLAIMED :
						      VIP_N_ERROR;
}

static_always_inline uword
neighbours (vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame, bool is_arp)
{
  u32 *from = vlib_frame_vector_args (frame), n = frame->n_vectors;
  vlib_buffer_t *b[VLIB_FRAME_SIZE];
  u16 nexts[VLIB_FRAME_SIZE];
  vlib_get_buffers (vm, from, b, n);
  for (u32 i = 0; i < n; i++)
    {
      u32 next, bytes = 0;
      ipshare_port_t *port = port_of (b[i]);
      vip_error_t about = !port ? VIP_N_ERROR : is_arp ? look_at_arp (port, b[i], &bytes) : look_at_nd (port, b[i], &bytes);
      vnet_feature_next (&next, b[i]);
      nexts[i] = next;
      if (about == VIP_N_ERROR)
	continue;
      bool done = put (port, b[i], is_arp ? ETHERNET_TYPE_ARP : ETHERNET_TYPE_IP6, bytes);
      if (about == VIP_ERROR_ASKED || !is_vpps_too (port, b[i], is_arp))
	{
	  b[i]->error = node->errors[done ? about : VIP_ERROR_LOST]; /* error-drop counts it */
	  nexts[i] = VIP_NEXT_DROP;
	}
      else
	vlib_node_increment_counter (vm, node->node_index, done ? about : VIP_ERROR_LOST, 1);
    }
  vlib_buffer_enqueue_to_next (vm, node, from, nexts, n);
  return n;
}

#define NODE(id, node_name, is_arp)                                                                                   \
  VLIB_NODE_FN (id) (vlib_main_t * vm, vlib_node_runtime_t * node, vlib_frame_t * frame)                              \
  {                                                                                                                   \
    return neighbours (vm, node, frame, is_arp);                                                                      \
  }                                                                                                                   \
  VLIB_REGISTER_NODE (id) = {                                                                                         \
    .name = node_name,                                                                                                \
    .vector_size = sizeof (u32),                                                                                      \
    .type = VLIB_NODE_TYPE_INTERNAL,                                                                                  \
    .n_errors = VIP_N_ERROR,                                                                                          \
    .error_strings = vip_error_strings,                                                                               \
    .n_next_nodes = VIP_N_NEXT,                                                                                       \
    .next_nodes = { [VIP_NEXT_DROP] = "error-drop" },                                                                 \
  };

NODE (ipshare_vip_arp_node, "ipshare-vip-arp", true)
NODE (ipshare_vip_nd_node, "ipshare-vip-nd", false)

VNET_FEATURE_INIT (ipshare_vip_arp, static) = {
  .arc_name = "arp",
  .node_name = "ipshare-vip-arp",
  .runs_before = VNET_FEATURES ("arp-reply", "arp-proxy", "arp-disabled"),
};
VNET_FEATURE_INIT (ipshare_vip_nd_unicast, static) = {
  .arc_name = "ip6-unicast",
  .node_name = "ipshare-vip-nd",
  .runs_before = VNET_FEATURES ("ipshare-reply-ip6", "ip6-not-enabled"),
};
VNET_FEATURE_INIT (ipshare_vip_nd_multicast, static) = {
  .arc_name = "ip6-multicast",
  .node_name = "ipshare-vip-nd",
  .runs_before = VNET_FEATURES ("ip6-not-enabled"),
};

void
ipshare_vips_enable (u32 sw_if_index, bool enable)
{
  vnet_feature_enable_disable ("arp", "ipshare-vip-arp", sw_if_index, enable, 0, 0);
  vnet_feature_enable_disable ("ip6-unicast", "ipshare-vip-nd", sw_if_index, enable, 0, 0);
  vnet_feature_enable_disable ("ip6-multicast", "ipshare-vip-nd", sw_if_index, enable, 0, 0);
}

/* ---- what VPP has learned before, main thread ---- */

typedef struct
{
  const ipshare_ports_t *ports;
  const ipshare_port_t *port;
  ip_address_t *found;
} unlearn_t;

static walk_rc_t
gather (index_t index, void *arg)
{
  unlearn_t *u = arg;
  const ip_neighbor_t *neighbor = ip_neighbor_get (index);
  const ip_address_t *ip = ip_neighbor_get_ip (neighbor);
  bool is4 = ip->version == AF_IP4;
  const u8 *address = is4 ? (const u8 *) &ip->ip.ip4 : (const u8 *) &ip->ip.ip6;
  if (!(neighbor->ipn_flags & IP_NEIGHBOR_FLAG_STATIC) && is_public_of (u->ports, u->port, is4 ? 4 : 6, address))
    vec_add1 (u->found, *ip);
  return WALK_CONTINUE;
}

void
ipshare_vips_unlearn (const ipshare_ports_t *ports)
{
  for (u32 i = 0; ports && i < ports->n; i++)
    {
      unlearn_t u = { .ports = ports, .port = ports->at + i };
      ip_address_t *ip;
      if (u.port->sw_if_index == ~0 || !u.port->has_addresses)
	continue;
      ip_neighbor_walk (AF_IP4, u.port->sw_if_index, gather, &u);
      ip_neighbor_walk (AF_IP6, u.port->sw_if_index, gather, &u);
      vec_foreach (ip, u.found)
	ip_neighbor_del (ip, u.port->sw_if_index);
      vec_free (u.found);
    }
}
