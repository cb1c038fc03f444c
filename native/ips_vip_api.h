/* ips_vip_api.h: answers and announcements for virtual addresses, as Python and the hosts see them
 * (ips_vip.h).
 *
 * Read by cffi too. An address is 16 bytes; IPv4 uses the first four.
 */
#ifndef IPS_VIP_API_H
#define IPS_VIP_API_H
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>

enum ips_vip_sizes { IPS_VIP_ARP = 42, IPS_VIP_NA = 86, IPS_VIP_ROOM = 86 }; /* Ethernet pads what it sends */
/* router: sets R in advertisements */
struct ips_vip { uint8_t address[16]; uint8_t mac[6]; uint8_t family, router; };

/* The reply to an ARP request or neighbour solicitation for one of the n VIPs: its length in *size (<=
 * IPS_VIP_ROOM), and the VIP in *which. Returns ANSWERED (0), CONFLICT (someone else announces it; *which is
 * set) or another number. */
int ips_vip_answer(const struct ips_vip *vips, uint32_t n, const uint8_t *frame, size_t len, uint8_t *out,
                          size_t *size, uint32_t *which);
/* Gratuitous ARP request (RFC 5227 3) or unsolicited neighbour advertisement with O set. Returns its
 * length. */
size_t ips_vip_announce(const struct ips_vip *vip, uint8_t *out);
/* Which addresses a frame asks for or announces: 0 to 2 of them, 16 bytes each, into out; *family is set where there are
 * any. For holders of more addresses than a list should have. What is malformed is found by ips_vip_answer. */
uint32_t ips_vip_addresses(const uint8_t *frame, size_t len, uint8_t out[2][16], uint8_t *family);
/* Whether an address is in a prefix of the same family. */
bool ips_vip_within(const uint8_t *prefix, uint32_t prefix_len, const uint8_t *address);
int ips_vip_results(void);
const char *ips_vip_result_name(int result);
const char *ips_vip_result(int result);
#endif
