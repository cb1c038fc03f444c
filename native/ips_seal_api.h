/* ips_seal_api.h: the authenticated datagram channel between two nodes, as its users see it.
 *
 * hello, hello-ack, confirm: each side's fresh nonce has to come back before anything of the peer counts,
 * so a recorded handshake does nothing to a node that has just started. Keys per direction = HKDF(pair key,
 * both nonces, both ids); every datagram after that is AES-256-GCM with its sequence number as nonce. No
 * socket, clock or source of randomness: datagrams go in and come out, `now_ns` is CLOCK_BOOTTIME, random
 * octets come by a callback. One thread. All memory is taken by ips_seal_new; what is not authentic changes
 * nothing but a counter.
 *
 * Datagram: form 1 | type | key number | 0 | stream (4) | sequence (8) | ciphertext | tag (16), big-endian;
 * the first 16 octets are authenticated too. RFC 5116, RFC 5869, RFC 6479.
 */
#ifndef IPS_SEAL_API_H
#define IPS_SEAL_API_H
#include <stdint.h>
#include <stddef.h>
#include <stdbool.h>

enum ips_seal_const {
  IPS_SEAL_ID = 16, IPS_SEAL_KEY = 32, IPS_SEAL_NAME = 16, IPS_SEAL_ITEMS = 16,
  IPS_SEAL_DATAGRAM = 1400, /* the largest that is made */
  IPS_SEAL_OVERHEAD = 32,   /* header and tag */
  IPS_SEAL_VERSION = 1,     /* of what is inside: the newest that is spoken here, */
  IPS_SEAL_OLDEST = 1,      /* and the oldest */
};
enum ips_seal_type {        /* the second octet */
  IPS_SEAL_HELLO = 1, IPS_SEAL_HELLO_ACK = 2, IPS_SEAL_CONFIRM = 3, IPS_SEAL_ALIVE = 4,
  IPS_SEAL_FIRST_USER = 16, /* from here on: of the channel's users */
  IPS_SEAL_MIRROR = 16, IPS_SEAL_PAIR = 17, IPS_SEAL_WITNESS = 18,
};

struct ips_seal_item {      /* a configuration item that both nodes should agree about */
  char name[16];            /* zero-padded */
  uint64_t digest;
};
struct ips_seal_config {
  uint8_t id[16], peer[16]; /* the nodes' names; they differ */
  uint64_t boot;            /* this run of this process */
  uint8_t keys[2][32];      /* all are accepted, the first one is used */
  uint8_t key_numbers[2];
  uint8_t n_keys;
  uint8_t version, oldest;  /* 0: IPS_SEAL_VERSION, IPS_SEAL_OLDEST */
  uint8_t n_items;
  struct ips_seal_item items[16];
  uint64_t hello_ns;        /* between two hellos; > 0 */
  uint64_t silence_ns;      /* a peer not heard for so long is greeted anew; > hello_ns */
  uint64_t rekey_after;     /* datagrams under one key, then a new handshake; 0: 2^28 */
};
typedef void (*ips_random_fn)(void *arg, uint8_t *out, size_t n);

struct ips_seal;
/* NULL: no memory, or a value out of range. */
struct ips_seal *ips_seal_new(const struct ips_seal_config *c, ips_random_fn random, void *arg);
void ips_seal_free(struct ips_seal *s);
/* Other keys; the stream that is open stays, and is replaced by one under the first key. -1: none or twice.
 * */
int ips_seal_set_keys(struct ips_seal *s, const uint8_t (*keys)[32], const uint8_t *numbers, uint8_t n);

/* One datagram. IPS_SEAL_OK: *type and *plain_len are set and `plain` (room for len octets) holds the
 * content. Else: a number of ips_seal.def, counted. What has to be answered comes out of ips_seal_tick. */
int ips_seal_open(struct ips_seal *s, const uint8_t *datagram, size_t len, uint64_t now_ns, uint8_t *type,
                  uint8_t *plain, size_t *plain_len);
/* Seals n octets as a datagram in out (room for n + IPS_SEAL_OVERHEAD). Its length; 0: no stream is open, the
 * type is none for users, or too long. */
size_t ips_seal_wrap(struct ips_seal *s, uint8_t type, const uint8_t *plain, size_t n, uint64_t now_ns,
                     uint8_t *out);
/* The next handshake datagram or sign of life that is due, into out (room for IPS_SEAL_DATAGRAM); to be
 * called until it returns 0. */
size_t ips_seal_tick(struct ips_seal *s, uint64_t now_ns, uint8_t *out);

struct ips_seal_info {
  bool open;              /* a stream is there */
  bool alive;             /* and its peer was heard within silence_ns */
  bool other_version;     /* the peer's last hello had no protocol version in common with us */
  uint8_t version;        /* negotiated */
  uint8_t key_number;     /* of the stream */
  uint16_t mismatch;      /* bit i: our item i differs at the peer, or is missing there */
  uint16_t unknown_items; /* items of the peer that we do not have */
  uint64_t peer_boot;
  uint64_t opened;        /* streams so far */
  uint64_t heard_ns;      /* last authentic datagram of this stream */
};
void ips_seal_info(const struct ips_seal *s, uint64_t now_ns, struct ips_seal_info *out);
int ips_seal_count(void); /* ips_seal.def */
const char *ips_seal_name(int result);
const char *ips_seal_text(int result);
uint64_t ips_seal_counter(const struct ips_seal *s, int result);

#endif
