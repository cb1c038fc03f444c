/* ports.c: the interfaces of VPP that a pair names: which they are, whether they are up, and frames out of them.
 *
 * The real-time thread knows nothing of VPP: of a port it reads one word, which the main thread writes, and its frames go
 * through rings. What leaves is checked against the lease once more by who sends it: a process that was stopped between
 * the two must not speak for a VIP when it goes on.
 */
#define _GNU_SOURCE
#include "pair.h"
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <vnet/ethernet/ethernet.h>
#include <vnet/feature/feature.h>

enum
{
  AT_ONCE = 16, /* frames; af_packet's rings have 32 places, and those of one turn come to them together */
};

#define UNLEARN_S 3.0 /* what workers learned before they were told otherwise has come to the main thread then */

#define HOST "host-" /* what af_packet's interfaces are called, before the name of the device */

/* ---- main thread ---- */

static ipshare_port_t *
port_named (ipshare_ports_t *ports, const char *name)
{
  for (u32 i = 0; i < ports->n; i++)
    if (strncmp (ports->at[i].name, name, sizeof ports->at[i].name) == 0)
      return ports->at + i;
  ipshare_port_t *port = ports->at + ports->n++; /* there is one for each name that a pair can have */
  strncpy (port->name, name, sizeof port->name - 1);
  port->sw_if_index = ~0;
  port->frames = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  rt_ring_init (&port->in);
  return port;
}

/* What is more than the record can hold is refused by native/rt. */
static void
place_others (ipshare_ports_t *ports, const struct ips_ctl_pair *p)
{
  for (u32 i = 0; i < p->n_publics && i < IPS_CTL_PAIR_PUBLICS; i++)
    {
      const struct ips_ctl_pair_public *from = p->publics + i;
      ipshare_port_t *port = port_named (ports, from->interface);
      ipshare_public_t *to = ports->publics + ports->n_publics++;
      port->has_addresses = true;
      *to = (ipshare_public_t){ .port = port - ports->at, .family = from->family, .prefix_len = from->prefix_len };
      memcpy (to->address, from->address, sizeof to->address);
    }
  for (u32 i = 0; i < p->n_criteria && i < IPS_CTL_PAIR_CRITERIA; i++)
    {
      ipshare_port_t *port = port_named (ports, p->criteria[i].interface);
      port->has_criteria |= p->criteria[i].kind != IPS_CTL_PAIR_LINK;
      ports->criteria[ports->n_criteria++] =
	(ipshare_criterion_t){ .port = port - ports->at, .rec = p->criteria[i] };
    }
  for (u32 i = 0; i < p->n_ports && i < IPS_CTL_PAIR_PORTS; i++)
    ports->subports[ports->n_subports++] = port_named (ports, p->ports[i]) - ports->at;
}

ipshare_ports_t *
ipshare_ports_new (const struct ips_ctl_pair *p)
{
  ipshare_ports_t *ports = calloc (1, sizeof *ports);
  bool whole = ports != NULL;
  if (!ports)
    return NULL;
  ports->changed = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  rt_ring_init (&ports->out);
  whole = ports->changed >= 0;
  for (u32 i = 0; i < p->n_vips && i < IPS_CTL_PAIR_VIPS; i++)
    {
      ipshare_port_t *port = port_named (ports, p->vips[i].interface);
      port->has_addresses = true;
      port->vips[port->n_vips].family = p->vips[i].family;
      memcpy (port->vips[port->n_vips++].address, p->vips[i].address, 16);
    }
  place_others (ports, p);
  for (u32 i = 0; i < ports->n; i++)
    whole = whole && ports->at[i].frames >= 0;
  if (whole)
    return ports;
  ipshare_ports_free (ports);
  return NULL;
}

void
ipshare_ports_free (ipshare_ports_t *ports)
{
  if (!ports)
    return;
  for (u32 i = 0; i < ports->n; i++)
    if (ports->at[i].frames >= 0)
      close (ports->at[i].frames);
  if (ports->changed >= 0)
    close (ports->changed);
  free (ports);
}

static bool
has_name (vnet_main_t *vnm, u32 sw_if_index, const char *name)
{
  u8 *s = format (0, "%U%c", format_vnet_sw_if_index_name, vnm, sw_if_index, 0);
  bool same = strcmp ((char *) s, name) == 0;
  vec_free (s);
  return same;
}

static u32
find (vnet_main_t *vnm, const ipshare_port_t *port)
{
  vnet_sw_interface_t *si;
  if (port->sw_if_index != ~0 && vnet_sw_interface_is_valid (vnm, port->sw_if_index) &&
      has_name (vnm, port->sw_if_index, port->name))
    return port->sw_if_index;
  pool_foreach (si, vnm->interface_main.sw_interfaces)
    if (has_name (vnm, si->sw_if_index, port->name))
      return si->sw_if_index;
  return ~0;
}

/* af_packet says that its link is up whatever the device below has. */
static bool
has_carrier (const char *name)
{
  static int fd = -1;
  struct ifreq r = { 0 };
  if (strncmp (name, HOST, sizeof HOST - 1) != 0)
    return true;
  if (fd < 0)
    fd = socket (AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  strncpy (r.ifr_name, name + sizeof HOST - 1, sizeof r.ifr_name - 1);
  return fd < 0 || ioctl (fd, SIOCGIFFLAGS, &r) < 0 || r.ifr_flags & IFF_RUNNING;
}

static u64
state_of (vnet_main_t *vnm, u32 sw_if_index, const char *name)
{
  if (sw_if_index == ~0)
    return 0;
  const u8 *mac = vnet_sw_interface_get_hw_address (vnm, sw_if_index);
  u64 state = vnet_sw_interface_is_up (vnm, sw_if_index) && has_carrier (name) ? IPSHARE_PORT_UP : 0;
  for (u32 i = 0; mac && i < 6; i++)
    state |= (u64) mac[i] << (16 + 8 * i);
  return state;
}

/* Whether it is another one than before. */
static bool
renew (vnet_main_t *vnm, ipshare_port_t *port)
{
  u64 state = state_of (vnm, port->sw_if_index, port->name), had = port->state;
  __atomic_store_n (&port->state, state, __ATOMIC_RELEASE);
  return state != had;
}

static void
enable (const ipshare_port_t *port, bool on)
{
  if (port->sw_if_index == ~0 || !vnet_sw_interface_is_valid (vnet_get_main (), port->sw_if_index))
    return;
  if (port->has_addresses)
    ipshare_vips_enable (port->sw_if_index, on);
  if (port->has_criteria)
    ipshare_reach_enable (port->sw_if_index, on);
}

/* The same name is another interface now, or none. */
static void
move (ipshare_ports_t *ports, ipshare_port_t *port, u32 to)
{
  vlib_main_t *vm = vlib_get_main ();
  if (ports != ipshare_pair.shown)
    {
      port->sw_if_index = to;
      return;
    }
  vlib_worker_thread_barrier_sync (vm);
  enable (port, false);
  port->sw_if_index = to;
  enable (port, true);
  ports->unlearn_until_s = vlib_time_now (vm) + UNLEARN_S;
  vlib_worker_thread_barrier_release (vm);
}

void
ipshare_ports_look (ipshare_ports_t *ports)
{
  vnet_main_t *vnm = vnet_get_main ();
  bool changed = false;
  for (u32 i = 0; ports && i < ports->n; i++)
    {
      ipshare_port_t *port = ports->at + i;
      u32 is = find (vnm, port);
      if (is != port->sw_if_index)
	move (ports, port, is);
      changed |= renew (vnm, port);
    }
  if (changed)
    rt_signal (ports->changed);
  if (ports && vlib_time_now (vlib_get_main ()) < ports->unlearn_until_s)
    ipshare_vips_unlearn (ports);
}

/* Nobody tells of a carrier. */
void
ipshare_ports_glance (ipshare_ports_t *ports)
{
  vnet_main_t *vnm = vnet_get_main ();
  bool changed = false;
  for (u32 i = 0; ports && i < ports->n; i++)
    if (ports->at[i].sw_if_index == ~0 || vnet_sw_interface_is_valid (vnm, ports->at[i].sw_if_index))
      changed |= renew (vnm, ports->at + i);
  if (changed)
    rt_signal (ports->changed);
}

void
ipshare_ports_show (ipshare_ports_t *ports)
{
  vlib_main_t *vm = vlib_get_main ();
  ipshare_ports_t *had = ipshare_pair.shown;
  vlib_worker_thread_barrier_sync (vm);
  for (u32 i = 0; had && i < had->n; i++)
    enable (had->at + i, false);
  ipshare_pair.shown = ports;
  for (u32 i = 0; ports && i < ports->n; i++)
    enable (ports->at + i, true);
  if (ports)
    ports->unlearn_until_s = vlib_time_now (vm) + UNLEARN_S;
  vlib_worker_thread_barrier_release (vm);
  if (had)
    ipshare_subports_set (had, false); /* those that the new ones have too may come up again */
  ipshare_subports_set (ports, true);
  ipshare_ports_look (ports); /* who came or went meanwhile */
}

void
ipshare_ports_gone (u32 sw_if_index)
{
  ipshare_ports_t *ports = ipshare_pair.shown;
  for (u32 i = 0; ports && i < ports->n; i++)
    if (ports->at[i].sw_if_index == sw_if_index)
      {
	move (ports, ports->at + i, ~0);
	__atomic_store_n (&ports->at[i].state, 0, __ATOMIC_RELEASE);
	rt_signal (ports->changed);
      }
}

bool
ipshare_ports_send_one (vlib_main_t *vm, u32 sw_if_index, const u8 *frame, u32 frame_n)
{
  vnet_main_t *vnm = vnet_get_main ();
  bool is_arp = frame[12] == 0x08 && frame[13] == 0x06;
  u32 bi;
  u8 *head = ethernet_build_rewrite (vnm, sw_if_index, is_arp ? VNET_LINK_ARP : VNET_LINK_IP6, frame);
  if (!head)
    return false;
  if (vlib_buffer_alloc (vm, &bi, 1) != 1)
    {
      vec_free (head);
      return false;
    }
  vlib_buffer_t *b = vlib_get_buffer (vm, bi);
  u8 *to = vlib_buffer_get_current (b);
  u32 n = frame_n - sizeof (ethernet_header_t);
  clib_memcpy (to, head, vec_len (head));
  clib_memcpy (to + vec_len (head), frame + sizeof (ethernet_header_t), n);
  b->current_length = vec_len (head) + n;
  b->flags |= VNET_BUFFER_F_LOCALLY_ORIGINATED;
  vnet_buffer (b)->sw_if_index[VLIB_RX] = vnet_buffer (b)->sw_if_index[VLIB_TX] = sw_if_index;
  vec_free (head);
  vlib_frame_t *f = vnet_get_frame_to_sw_interface (vnm, sw_if_index);
  ((u32 *) vlib_frame_vector_args (f))[f->n_vectors++] = bi;
  vnet_put_frame_to_sw_interface (vnm, sw_if_index, f);
  return true;
}

bool
ipshare_ports_send (vlib_main_t *vm, ipshare_ports_t *ports)
{
  struct rt_place *p = NULL;
  const _Atomic u64 *until = &ips_tables_shared (ipshare_main.tables)->forward_until;
  for (u32 left = AT_ONCE; ports && left && (p = rt_ring_take (&ports->out)); left--)
    {
      const ipshare_port_t *port = ports->at + p->tag;
      if (ipshare_now_ns () < atomic_load (until) && vnet_sw_interface_is_valid (vnet_get_main (), port->sw_if_index))
	ipshare_ports_send_one (vm, port->sw_if_index, p->bytes, p->n);
      rt_ring_give_back (&ports->out, p);
    }
  return p != NULL;
}

/* ---- as native/rt sees them ---- */

/* The pair is set: from here on these ports are the thread's. */
static int
events (CLIB_UNUSED (void *arg))
{
  ipshare_pair.live = ipshare_pair.next;
  ipshare_pair.live->adopted = true;
  return fcntl (ipshare_pair.live->changed, F_DUPFD_CLOEXEC, 0);
}

static void
drain (int fd)
{
  u64 n;
  while (read (fd, &n, sizeof n) > 0)
    ;
}

static ipshare_port_t *
port_of (const struct rt_link *l)
{
  ipshare_ports_t *ports = ipshare_pair.live;
  for (u32 i = 0; i < ports->n; i++)
    if (strncmp (ports->at[i].name, l->name, sizeof l->name) == 0)
      return ports->at + i;
  return NULL;
}

static void
refresh (CLIB_UNUSED (void *arg), struct rt_link *l, CLIB_UNUSED (const u8 (*solicited)[3]), CLIB_UNUSED (unsigned n))
{
  ipshare_port_t *port = port_of (l);
  u64 state = port ? __atomic_load_n (&port->state, __ATOMIC_ACQUIRE) : 0;
  l->fd = port ? port->frames : -1;
  l->is_up = state & IPSHARE_PORT_UP;
  for (u32 i = 0; i < 6; i++)
    l->mac[i] = state >> (16 + 8 * i);
}

static void
forget (struct rt_link *l)
{
  l->fd = -1;
}

static ssize_t
receive (CLIB_UNUSED (void *arg), struct rt_link *l, u8 *out, size_t room)
{
  ipshare_port_t *port = port_of (l);
  struct rt_place *p = port ? rt_ring_take (&port->in) : NULL;
  if (!p)
    {
      if (port)
	drain (port->frames);
      p = port ? rt_ring_take (&port->in) : NULL; /* put between the look and the draining */
    }
  if (!p)
    return -1;
  size_t n = clib_min (p->n, room);
  memcpy (out, p->bytes, n);
  rt_ring_give_back (&port->in, p);
  return n;
}

static bool
send_frame (CLIB_UNUSED (void *arg), const struct rt_link *l, const u8 *frame, size_t n)
{
  ipshare_ports_t *ports = ipshare_pair.live;
  ipshare_port_t *port = port_of (l);
  if (!port || n > RT_RING_BYTES)
    return true;
  struct rt_place *p = rt_ring_claim (&ports->out);
  if (!p)
    return false;
  p->tag = port - ports->at;
  p->n = n;
  memcpy (p->bytes, frame, n);
  rt_ring_hand_over (p);
  rt_signal (ipshare_pair.woken);
  return true;
}

const struct rt_links ipshare_links = {
  .events = events,
  .drain_events = drain,
  .refresh = refresh,
  .close = forget,
  .receive = receive,
  .send = send_frame,
};
