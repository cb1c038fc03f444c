/* ips_ports.h: public ports as bits: one bitmap for each (address, protocol), set and cleared atomically.
 *
 * No worker owns a port, and none waits for another. A search begins at a random port and goes round the
 * address's range once. Protocols without ports that could be translated (ESP, SCTP, GRE, ...) have one bit
 * per protocol: one inside host at a time has such a protocol at an address.
 */
#ifndef IPS_PORTS_H
#define IPS_PORTS_H
#include "ips_chain.h"

enum { IPS_PORT_CLASSES = 3, IPS_PORT_WORDS = 65536 / 64 };
struct ips_port_set {   /* of one address */
  uint64_t bits[IPS_PORT_CLASSES][IPS_PORT_WORDS]; /* TCP; UDP, UDP-Lite, DCCP; ICMP identifiers */
  uint64_t whole[4];    /* by protocol number */
  uint32_t used[IPS_PORT_CLASSES];
  /* Of the pool that has the address now; another ips_napt may change them while ports are taken. */
  uint16_t first, last; /* ports that a search may give out; ICMP: all 65,536 */
  uint16_t realm;
  uint8_t is_live;      /* 0: it is in no pool any more */
};

/* -1: its ports stay as they are, the address alone is translated. */
static inline int ips_port_class(unsigned proto) {
  switch (proto) {
  case IPS_PROTO_TCP: return 0;
  case IPS_PROTO_UDP: case IPS_PROTO_UDPLITE: case IPS_PROTO_DCCP: return 1;
  case IPS_PROTO_ICMP: case IPS_PROTO_ICMP6: return 2;
  default: return -1;
  }
}

/* Takes a free port of first .. last (0, 0: any that the address gives out); 0: none. (Port 0 itself is never given out; for protocols without ports: 1 = taken.) */
uint32_t ips_ports_take(struct ips_port_set *s, unsigned proto, uint16_t first, uint16_t last,
                        uint64_t random);
/* Takes this one. False: it is taken. */
bool ips_ports_claim(struct ips_port_set *s, unsigned proto, uint16_t port);
void ips_ports_give(struct ips_port_set *s, unsigned proto, uint16_t port);
uint32_t ips_ports_used(const struct ips_port_set *s); /* of all classes, protocols without ports too */
#endif
