/* dispatch.h: packets to a cluster's servers, by their hardware addresses (SYSTEMS.md S2.4).
 *
 *   main thread (neighbours.c): asks the kernel for servers' hardware addresses, once a second and as they change, and
 *                               writes them down by the number of the server's address
 *   packet threads (dispatch.c): an Ethernet frame with a virtio-net header before it, so that super-packets pass whole,
 *                               through an AF_PACKET socket of each thread's own
 *
 * A hardware address that was known once stays until another one is: who restarts the agent, or loses the kernel's entry,
 * loses no packet.
 */
#ifndef DISPATCH_H
#define DISPATCH_H
#include "../flows/flows_dispatch.h"
#include "engine.h"

enum { DISPATCH_LINKS = 64 };

struct dispatch_link {            /* an interface with servers; the main thread writes */
  char name[16];
  _Atomic uint64_t at;            /* hardware address << 16, as ours; 0: it is not there, or has none */
  _Atomic int ifindex;
};
struct dispatch {
  int netlink;                    /* rtnetlink: neighbours */
  uint32_t n_links, addresses;
  struct dispatch_link links[DISPATCH_LINKS];
  /* By number of an address: hardware address << 16 | 1 + link, or the link alone while it is not known; 0: no server. */
  _Atomic uint64_t *servers;
};

/* neighbours.c: the main thread's. */
int dispatch_open(struct engine *e);      /* 0, or -1: no memory */
void dispatch_close(struct engine *e);
/* What is set now: interfaces and servers. The sentence: what is wrong, nothing has changed; NULL: done. */
const char *dispatch_prepare(struct engine *e, const struct ips_ctl_dispatch *c);
void dispatch_set(struct engine *e, const struct ips_ctl_dispatch *c); /* it is the one in force now */
void dispatch_follow(struct engine *e);   /* the netlink socket is readable */
void dispatch_tick(struct engine *e);     /* once a second: asks for all servers */
bool dispatch_mac(const struct engine *e, uint32_t number, uint8_t mac[6]);

/* dispatch.c: packet threads'. */
int dispatch_socket(void);                /* -1 with errno */
void dispatch_send(struct worker *w, struct ips_pkt *p);
#endif
