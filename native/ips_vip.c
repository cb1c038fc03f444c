/* ips_vip.c: answers for virtual addresses (contract in ips_vip.h).
 *
 * A frame passes: Ethernet type -> ARP or IPv6 -> every check of its RFC -> is the target one of ours? ->
 * reply. Nothing is answered to a malformed frame, and nothing is written beyond IPS_VIP_ROOM bytes.
 */
#include "ips_vip.h"
#include "ips_csum.h"

enum { ETH = 14, ARP_BYTES = 28, IP6 = 40, NS_BYTES = 24, NA_BYTES = 32, TYPE_NS = 135, TYPE_NA = 136 };
enum { OPT_SOURCE_MAC = 1, FLAG_ROUTER = 0x80, FLAG_SOLICITED = 0x40, FLAG_OVERRIDE = 0x20 };
static const uint8_t everyone[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t arp_head[6] = {0, 1, 8, 0, 6, 4}; /* Ethernet, IPv4, lengths */
static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1};

static bool find(const struct ips_vip *v, uint32_t n, int family, const uint8_t *address, uint32_t *which) {
  for (uint32_t i = 0; i < n; i++)
    if (v[i].family == family && memcmp(v[i].address, address, family == 4 ? 4 : 16) == 0)
      return *which = i, true;
  return false;
}

static void put_eth(uint8_t *out, const uint8_t *to, const uint8_t *from, uint16_t type) {
  memcpy(out, to, 6);
  memcpy(out + 6, from, 6);
  ips_st16(out + 12, ips_be16(type));
}

/* ---- ARP ------------------------------------------------------------------------------------------ */

static size_t put_arp(uint8_t *out, const struct ips_vip *v, uint8_t op, const uint8_t *to,
                      const uint8_t *to_mac, const uint8_t *to_ip) {
  put_eth(out, to, v->mac, 0x0806);
  memcpy(out + 14, arp_head, 6);
  out[20] = 0;
  out[21] = op;
  memcpy(out + 22, v->mac, 6);
  memcpy(out + 28, v->address, 4);
  memcpy(out + 32, to_mac, 6);
  memcpy(out + 38, to_ip, 4);
  return IPS_VIP_ARP;
}

static int answer_arp(const struct ips_vip *v, uint32_t n, const uint8_t *f, size_t len, uint8_t *out,
                          size_t *size, uint32_t *which) {
  if (len < ETH + ARP_BYTES) return IPS_VIP_SHORT;
  const uint8_t *sender_mac = f + 22, *sender_ip = f + 28, *target = f + 38;
  uint16_t op = ips_be16(ips_ld16(f + 20));
  if (memcmp(f + 14, arp_head, 6) || (op != 1 && op != 2)) return IPS_VIP_BAD_ARP;
  if (sender_mac[0] & 1 || memcmp(sender_mac, f + 6, 6)) return IPS_VIP_BAD_SOURCE;
  if (find(v, n, 4, sender_ip, which)) /* RFC 5227 2.4; our own announcements may come back */
    return memcmp(sender_mac, v[*which].mac, 6) ? IPS_VIP_CONFLICT : IPS_VIP_NOT_OURS;
  if (op != 1 || !find(v, n, 4, target, which)) return IPS_VIP_NOT_OURS;
  *size = put_arp(out, &v[*which], 2, sender_mac, sender_mac, sender_ip);
  return IPS_VIP_ANSWERED;
}

/* ---- neighbour discovery ---------------------------------------------------------------------------- */

static size_t put_na(uint8_t *out, const struct ips_vip *v, const uint8_t *to_mac, const uint8_t *to,
    uint8_t flags) {
  uint8_t *ip = out + ETH, *icmp = ip + IP6;
  memset(out, 0, IPS_VIP_NA);
  put_eth(out, to_mac, v->mac, 0x86dd);
  ip[0] = 0x60;
  ip[5] = NA_BYTES;
  ip[6] = IPS_PROTO_ICMP6;
  ip[7] = 255;
  memcpy(ip + 8, v->address, 16);
  memcpy(ip + 24, to, 16);
  icmp[0] = TYPE_NA;
  icmp[4] = flags | FLAG_OVERRIDE | (v->router ? FLAG_ROUTER : 0);
  memcpy(icmp + 8, v->address, 16);
  icmp[24] = 2; /* target link-layer address */
  icmp[25] = 1;
  memcpy(icmp + 26, v->mac, 6);
  uint64_t sum = ips_csum_bytes(icmp, NA_BYTES, ips_csum_pseudo(ip, 6, IPS_PROTO_ICMP6, NA_BYTES));
  ips_st16(icmp + 2, (uint16_t)~ips_csum_fold(sum));
  return IPS_VIP_NA;
}

/* *mac: the source link-layer address option of a solicitation, or NULL. false: malformed (RFC 4861 4.6). */
static bool walk_options(const uint8_t *p, size_t n, const uint8_t **mac) {
  *mac = NULL;
  while (n) {
    if (n < 2 || p[1] == 0 || (size_t)p[1] * 8 > n) return false;
    if (p[0] == OPT_SOURCE_MAC && p[1] != 1) return false;
    if (p[0] == OPT_SOURCE_MAC && !*mac) *mac = p + 2;
    n -= (size_t)p[1] * 8;
    p += (size_t)p[1] * 8;
  }
  return true;
}

/* RFC 4861 7.1.1, 7.1.2: valid solicitations and advertisements. ANSWERED: it is one; *mac as above. */
static int check_nd(const uint8_t *f, size_t len, const uint8_t **mac) {
  const uint8_t *ip = f + ETH, *icmp = ip + IP6;
  size_t payload = ips_be16(ips_ld16(ip + 4));
  if (payload > len - ETH - IP6) return IPS_VIP_BAD_LENGTH;
  if (payload < NS_BYTES) return IPS_VIP_SHORT;
  if (ip[7] != 255) return IPS_VIP_BAD_HOPS;
  if (icmp[1]) return IPS_VIP_BAD_CODE;
  uint64_t sum = ips_csum_bytes(icmp, payload, ips_csum_pseudo(ip, 6, IPS_PROTO_ICMP6, (uint32_t)payload));
  if (ips_csum_fold(sum) != 0xffff) return IPS_VIP_BAD_CHECKSUM;
  if (icmp[8] == 0xff) return IPS_VIP_BAD_TARGET;
  if (!walk_options(icmp + NS_BYTES, payload - NS_BYTES, mac)) return IPS_VIP_BAD_OPTION;
  if ((f[6] & 1) || (*mac && (**mac & 1)) || ip[8] == 0xff) return IPS_VIP_BAD_SOURCE;
  return IPS_VIP_ANSWERED;
}

static int answer_ns(const struct ips_vip *v, const uint8_t *f, const uint8_t *mac, uint8_t *out,
    size_t *size) {
  const uint8_t *source = f + ETH + 8, *to = f + ETH + 24;
  static const uint8_t solicited_node[13] = {0xff, 2, [11] = 1, [12] = 0xff};
  uint8_t multicast[6] = {0x33, 0x33, 0, 0, 0, 1};
  if (ips_all_zero(source, 16)) { /* somebody asks whether the address is free */
    if (mac || memcmp(to, solicited_node, 13)) return IPS_VIP_BAD_PROBE;
    *size = put_na(out, v, multicast, all_nodes, 0);
  } else {
    *size = put_na(out, v, mac ? mac : f + 6, source, FLAG_SOLICITED);
  }
  return IPS_VIP_ANSWERED;
}

static int answer_nd(const struct ips_vip *v, uint32_t n, const uint8_t *f, size_t len, uint8_t *out,
                          size_t *size, uint32_t *which) {
  const uint8_t *ip = f + ETH, *icmp = ip + IP6, *mac;
  if (len < ETH + IP6 + 1) return IPS_VIP_SHORT;
  if (ip[0] >> 4 != 6 || ip[6] != IPS_PROTO_ICMP6 || (icmp[0] != TYPE_NS && icmp[0] != TYPE_NA))
    return IPS_VIP_NOT_OURS;
  int bad = check_nd(f, len, &mac);
  if (bad) return bad;
  if (!find(v, n, 6, icmp + 8, which)) return IPS_VIP_NOT_OURS;
  if (icmp[0] == TYPE_NA) return memcmp(f + 6, v[*which].mac, 6) ? IPS_VIP_CONFLICT : IPS_VIP_NOT_OURS;
  if (memcmp(f + 6, v[*which].mac, 6) == 0) return IPS_VIP_NOT_OURS; /* our own came back */
  return answer_ns(&v[*which], f, mac, out, size);
}

int ips_vip_answer(const struct ips_vip *vips, uint32_t n, const uint8_t *frame, size_t len, uint8_t *out,
                          size_t *size, uint32_t *which) {
  *size = 0;
  *which = IPS_NONE;
  if (len < ETH) return IPS_VIP_SHORT;
  uint16_t type = ips_be16(ips_ld16(frame + 12));
  if (type == 0x0806) return answer_arp(vips, n, frame, len, out, size, which);
  if (type == 0x86dd) return answer_nd(vips, n, frame, len, out, size, which);
  return IPS_VIP_NOT_OURS;
}

size_t ips_vip_announce(const struct ips_vip *vip, uint8_t *out) {
  static const uint8_t zero[6], multicast[6] = {0x33, 0x33, 0, 0, 0, 1};
  if (vip->family == 4) return put_arp(out, vip, 1, everyone, zero, vip->address);
  return put_na(out, vip, multicast, all_nodes, 0);
}

static const char *const results[][2] = {
#define W(name, text) {#name, text},
#include "ips_vip.def"
#undef W
};
uint32_t ips_vip_addresses(const uint8_t *f, size_t len, uint8_t out[2][16], uint8_t *family) {
  uint16_t type = len < ETH ? 0 : ips_be16(ips_ld16(f + 12));
  if (type == 0x0806 && len >= ETH + ARP_BYTES) {
    memset(out, 0, 32);
    memcpy(out[0], f + 28, 4);
    memcpy(out[1], f + 38, 4);
    return *family = 4, 2;
  }
  if (type != 0x86dd || len < ETH + IP6 + NS_BYTES) return 0;
  memcpy(out[0], f + ETH + IP6 + 8, 16);
  return *family = 6, 1;
}

bool ips_vip_within(const uint8_t *prefix, uint32_t prefix_len, const uint8_t *address) {
  uint32_t whole = prefix_len / 8, bits = prefix_len % 8;
  if (memcmp(prefix, address, whole)) return false;
  return !bits || (prefix[whole] ^ address[whole]) >> (8 - bits) == 0;
}

int ips_vip_results(void) { return IPS_N_VIP_RESULTS; }
const char *ips_vip_result_name(int i) { return i >= 0 && i < IPS_N_VIP_RESULTS ? results[i][0] : NULL; }
const char *ips_vip_result(int i) { return i >= 0 && i < IPS_N_VIP_RESULTS ? results[i][1] : NULL; }
