/* reach.c: gateways that the pair asks by interfaces of VPP (SYSTEMS.md S2.6).
 *
 *   thread (native/rt) -> `asked` -> main thread -> ARP, solicitation: out of the interface
 *                                               -> echo: ip4-lookup, ip6-lookup in the interface's own table
 *   arp, ip4-local, ip6-local -> ipshare-reach-* -> is it the answer? -> `answered` -> thread
 *
 * The source is the interface's own address as VPP has it when the question leaves. An echo may leave by another way, if
 * the table says so; only an answer that comes in by the interface counts. What a question is, and an answer, is
 * native/ips_reach.c's; when one is due, and what its silence means, native/rt's.
 */
#include "pair.h"
#include <vnet/ethernet/arp_packet.h>
#include <vnet/ethernet/ethernet.h>
#include <vnet/feature/feature.h>
#include <vnet/fib/fib_sas.h>
#include <vnet/fib/fib_table.h>
#include <vnet/ip/ip4.h>
#include <vnet/ip/ip6.h>

/* ---- questions: main thread ---- */

/* False: the interface has no address to ask from, which only ARP can do without. */
static bool
set_source (u32 sw_if_index, const struct ips_ctl_pair_criterion *k, struct ips_reach_question *q)
{
  ip46_address_t to = { 0 }, from = { 0 };
  bool is_v6 = k->family == 6;
  clib_memcpy (is_v6 ? to.ip6.as_u8 : to.ip4.as_u8, k->address, is_v6 ? 16 : 4);
  bool found = fib_sas_get (sw_if_index, is_v6 ? AF_IP6 : AF_IP4, &to, &from);
  if (!found && is_v6 && !q->is_echo)
    {
      to.ip6 = (ip6_address_t){ .as_u8 = { 0xfe, 0x80 } }; /* the link-local address will do */
      found = fib_sas_get (sw_if_index, AF_IP6, &to, &from);
    }
  if (found)
    clib_memcpy (q->source, is_v6 ? from.ip6.as_u8 : from.ip4.as_u8, is_v6 ? 16 : 4);
  return found || (!is_v6 && !q->is_echo);
}

/* What is link-local is looked up once more, on the link of VLIB_RX. */
static void
look_up (vlib_main_t *vm, u32 sw_if_index, const struct ips_reach_question *q, const u8 *packet, u32 n)
{
  u32 bi, table = fib_table_get_index_for_sw_if_index (q->family == 6 ? FIB_PROTOCOL_IP6 : FIB_PROTOCOL_IP4, sw_if_index);
  if (table == ~0 || vlib_buffer_alloc (vm, &bi, 1) != 1)
    return; /* counts as a question without an answer */
  vlib_buffer_t *b = vlib_get_buffer (vm, bi);
  clib_memcpy (vlib_buffer_get_current (b), packet, n);
  b->current_length = n;
  b->flags |= VNET_BUFFER_F_LOCALLY_ORIGINATED;
  vnet_buffer (b)->sw_if_index[VLIB_RX] = sw_if_index;
  vnet_buffer (b)->sw_if_index[VLIB_TX] = table;
  u32 node = q->family == 4 ? ip4_lookup_node.index : ip6_lookup_node.index;
  vlib_frame_t *f = vlib_get_frame_to_node (vm, node);
  ((u32 *) vlib_frame_vector_args (f))[f->n_vectors++] = bi;
  vlib_put_frame_to_node (vm, node, f);
}

static struct ips_reach_question
question_of (const ipshare_port_t *port, const ipshare_criterion_t *c, u32 asked)
{
  u64 state = __atomic_load_n (&port->state, __ATOMIC_ACQUIRE);
  struct ips_reach_question q = { .family = c->rec.family,
				  .is_echo = c->rec.kind == IPS_CTL_PAIR_ECHO,
				  .sequence = (u16) asked };
  clib_memcpy (q.address, c->rec.address, sizeof q.address);
  for (u32 i = 0; i < 6; i++)
    q.mac[i] = state >> (16 + 8 * i);
  return q;
}

void
ipshare_reach_send (vlib_main_t *vm, ipshare_ports_t *ports)
{
  for (u32 i = 0; ports && i < ports->n_criteria; i++)
    {
      ipshare_criterion_t *c = ports->criteria + i;
      const ipshare_port_t *port = ports->at + c->port;
      u32 asked = __atomic_load_n (&c->asked, __ATOMIC_ACQUIRE);
      if (asked == c->sent)
	continue;
      c->sent = asked;
      if (!vnet_sw_interface_is_valid (vnet_get_main (), port->sw_if_index))
	continue;
      u8 frame[IPS_REACH_ROOM];
      struct ips_reach_question q = question_of (port, c, asked);
      if (!set_source (port->sw_if_index, &c->rec, &q))
	continue;
      u32 n = ips_reach_frame (&q, frame);
      if (q.is_echo)
	look_up (vm, port->sw_if_index, &q, frame + IPS_REACH_ETH, n - IPS_REACH_ETH);
      else
	ipshare_ports_send_one (vm, port->sw_if_index, frame, n);
    }
}

/* ---- as native/rt sees it ---- */

static ipshare_criterion_t *
criterion (u32 i)
{
  return ipshare_pair.live->criteria + i;
}

static bool
is_up (CLIB_UNUSED (void *arg), u32 i, CLIB_UNUSED (const struct ips_ctl_pair_criterion *k))
{
  const ipshare_port_t *port = ipshare_pair.live->at + criterion (i)->port;
  return __atomic_load_n (&port->state, __ATOMIC_ACQUIRE) & IPSHARE_PORT_UP;
}

static void
ask (CLIB_UNUSED (void *arg), u32 i, CLIB_UNUSED (const struct ips_ctl_pair_criterion *k), u16 sequence)
{
  __atomic_store_n (&criterion (i)->asked, IPSHARE_ASKED | sequence, __ATOMIC_RELEASE);
  rt_signal (ipshare_pair.woken);
}

static bool
answered (CLIB_UNUSED (void *arg), u32 i, CLIB_UNUSED (const struct ips_ctl_pair_criterion *k), u16 sequence)
{
  return __atomic_load_n (&criterion (i)->answered, __ATOMIC_ACQUIRE) == (IPSHARE_ASKED | sequence);
}

const struct rt_askers ipshare_askers = { .is_up = is_up, .ask = ask, .answered = answered };

/* ---- answers: workers ---- */

#define foreach_reach_error _ (ANSWER, "answers of gateways")

typedef enum
{
#define _(name, text) REACH_ERROR_##name,
  foreach_reach_error
#undef _
    REACH_N_ERROR,
} reach_error_t;

static char *reach_error_strings[] = {
#define _(name, text) text,
  foreach_reach_error
#undef _
};

typedef enum
{
  REACH_NEXT_DROP,
  REACH_N_NEXT,
} reach_next_t;

typedef enum
{
  IS_ARP,
  IS_IP4,
  IS_IP6,
} what_t;

static bool
is_answer (const struct ips_reach_question *q, vlib_buffer_t *b, what_t what)
{
  const u8 *p = vlib_buffer_get_current (b);
  u32 n = b->current_length;
  if (what == IS_ARP)
    return ips_reach_is_arp (q, ((const ethernet_header_t *) ethernet_buffer_get_header (b))->dst_address, p, n);
  if (what == IS_IP4)
    {
      u32 head = n >= sizeof (ip4_header_t) ? ip4_header_bytes ((const ip4_header_t *) p) : n;
      return q->family == 4 && head < n && p[9] == IP_PROTOCOL_ICMP && ips_reach_is_icmp (q, p + 12, p + head, n - head);
    }
  return q->family == 6 && n > sizeof (ip6_header_t) && p[6] == IP_PROTOCOL_ICMP6 &&
	 ips_reach_is_icmp (q, p + 8, p + sizeof (ip6_header_t), n - sizeof (ip6_header_t));
}

/* Whether it is the answer to an echo: nobody else here waits for it. What a neighbour says is VPP's affair too. */
static bool
note (vlib_buffer_t *b, what_t what, u32 *answers)
{
  ipshare_ports_t *ports = ipshare_pair.shown;
  bool taken = false;
  for (u32 i = 0; ports && i < ports->n_criteria; i++)
    {
      ipshare_criterion_t *c = ports->criteria + i;
      const ipshare_port_t *port = ports->at + c->port;
      u32 asked = __atomic_load_n (&c->asked, __ATOMIC_ACQUIRE);
      if (!asked || c->rec.kind == IPS_CTL_PAIR_LINK || port->sw_if_index != vnet_buffer (b)->sw_if_index[VLIB_RX])
	continue;
      struct ips_reach_question q = question_of (port, c, asked);
      if (!is_answer (&q, b, what))
	continue;
      __atomic_store_n (&c->answered, asked, __ATOMIC_RELEASE);
      ++*answers;
      taken |= q.is_echo;
    }
  return taken;
}

static_always_inline uword
answers (vlib_main_t *vm, vlib_node_runtime_t *node, vlib_frame_t *frame, what_t what)
{
  u32 *from = vlib_frame_vector_args (frame), n = frame->n_vectors, found = 0;
  vlib_buffer_t *b[VLIB_FRAME_SIZE];
  u16 nexts[VLIB_FRAME_SIZE];
  vlib_get_buffers (vm, from, b, n);
  for (u32 i = 0; i < n; i++)
    {
      u32 next;
      vnet_feature_next (&next, b[i]);
      nexts[i] = next;
      if (note (b[i], what, &found))
	{
	  b[i]->error = node->errors[REACH_ERROR_ANSWER]; /* error-drop counts it */
	  nexts[i] = REACH_NEXT_DROP;
	  found--;
	}
    }
  if (found)
    vlib_node_increment_counter (vm, node->node_index, REACH_ERROR_ANSWER, found);
  vlib_buffer_enqueue_to_next (vm, node, from, nexts, n);
  return n;
}

#define NODE(id, node_name, what)                                                                                     \
  VLIB_NODE_FN (id) (vlib_main_t * vm, vlib_node_runtime_t * node, vlib_frame_t * frame)                              \
  {                                                                                                                   \
    return answers (vm, node, frame, what);                                                                           \
  }                                                                                                                   \
  VLIB_REGISTER_NODE (id) = {                                                                                         \
    .name = node_name,                                                                                                \
    .vector_size = sizeof (u32),                                                                                      \
    .type = VLIB_NODE_TYPE_INTERNAL,                                                                                  \
    .n_errors = REACH_N_ERROR,                                                                                        \
    .error_strings = reach_error_strings,                                                                             \
    .n_next_nodes = REACH_N_NEXT,                                                                                     \
    .next_nodes = { [REACH_NEXT_DROP] = "error-drop" },                                                               \
  };

NODE (ipshare_reach_arp_node, "ipshare-reach-arp", IS_ARP)
NODE (ipshare_reach_ip4_node, "ipshare-reach-ip4", IS_IP4)
NODE (ipshare_reach_ip6_node, "ipshare-reach-ip6", IS_IP6)

VNET_FEATURE_INIT (ipshare_reach_arp, static) = {
  .arc_name = "arp",
  .node_name = "ipshare-reach-arp",
  .runs_before = VNET_FEATURES ("arp-reply", "arp-proxy", "arp-disabled"),
};
VNET_FEATURE_INIT (ipshare_reach_ip4, static) = {
  .arc_name = "ip4-local",
  .node_name = "ipshare-reach-ip4",
  .runs_before = VNET_FEATURES ("ip4-local-end-of-arc"),
};
VNET_FEATURE_INIT (ipshare_reach_ip6, static) = {
  .arc_name = "ip6-local",
  .node_name = "ipshare-reach-ip6",
  .runs_before = VNET_FEATURES ("ip6-local-end-of-arc"),
};

void
ipshare_reach_enable (u32 sw_if_index, bool enable)
{
  vnet_feature_enable_disable ("arp", "ipshare-reach-arp", sw_if_index, enable, 0, 0);
  vnet_feature_enable_disable ("ip4-local", "ipshare-reach-ip4", sw_if_index, enable, 0, 0);
  vnet_feature_enable_disable ("ip6-local", "ipshare-reach-ip6", sw_if_index, enable, 0, 0);
}
