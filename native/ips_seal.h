/* ips_seal.h: the inside of the sealed channel, for its own files.
 *
 * ips_seal.c: the life of a channel and its datagrams; ips_seal_hello.c: the three handshake messages;
 * ips_seal_crypto.c: the only file that calls libcrypto. A stream is open or it is not; two are kept, so that
 * what was under way when a new one was opened still arrives.
 */
#ifndef IPS_SEAL_H
#define IPS_SEAL_H
#include "ips_core.h"
#include "ips_seal_api.h"

enum ips_seal_result {
#define S(name, text) IPS_SEAL_##name##_,
#include "ips_seal.def"
#undef S
  IPS_SEAL_N_RESULTS
};

enum {
  IPS_SEAL_HEAD = 16, IPS_SEAL_TAG = 16, IPS_SEAL_NONCE = 16, IPS_SEAL_CHECK = 8, IPS_SEAL_MAC = 32,
  IPS_SEAL_WORDS = 64, /* of 64 bits each: the replay window */
  IPS_SEAL_ANSWERS = 32, /* to hellos in a row */
};

struct ips_seal_cipher; /* ips_seal_crypto.c: one direction of one stream */
struct ips_seal_keys;   /* ips_seal_crypto.c: what belongs to one pair key */

struct ips_seal_stream {
  struct ips_seal_cipher *out, *in;
  uint8_t own_nonce[IPS_SEAL_NONCE], peer_nonce[IPS_SEAL_NONCE];
  uint32_t number;        /* from the key derivation; names the stream on the wire */
  uint8_t version, key_number;
  bool is_open, is_heard, is_first_to_speak; /* heard: the peer has it open as well */
  uint64_t opened_ns;
  uint64_t sent;          /* sequence number of the last datagram */
  uint64_t top;           /* highest received, */
  uint64_t seen[IPS_SEAL_WORDS]; /* and which below it (RFC 6479) */
};

struct ips_seal {
  struct ips_seal_config c;
  ips_random_fn random;
  void *random_arg;
  struct ips_seal_keys *keys[2];
  struct ips_seal_stream streams[2];
  unsigned now;           /* index of the stream that is used */
  uint8_t nonce[IPS_SEAL_NONCE]; /* for the next stream; never used for two */
  struct { uint8_t type, key, peer_nonce[IPS_SEAL_NONCE]; bool is_due; } answer;
  uint32_t answers_left;
  uint64_t answers_ns;    /* when answers_left was last raised */
  uint64_t hello_due_ns, confirm_due_ns, spoke_ns, heard_ns;
  uint64_t peer_boot, opened;
  bool same_boot;         /* the two last streams are with the same process */
  bool other_version;     /* no version in common, said since a stream was opened last */
  uint16_t mismatch, unknown_items;
  uint64_t counters[IPS_SEAL_N_RESULTS];
};

/* ips_seal_hello.c. Writes one into out; its length. */
size_t ips_seal_hello(struct ips_seal *s, uint8_t type, unsigned key, const uint8_t *nonce,
                      const uint8_t *echo, uint8_t *out);
/* A number of ips_seal.def. */
int ips_seal_take_hello(struct ips_seal *s, const uint8_t *d, size_t len, uint64_t now_ns);

/* ips_seal_crypto.c; all of them: false or NULL where libcrypto refuses. */
struct ips_seal_cipher *ips_seal_cipher_new(void);
void ips_seal_cipher_free(struct ips_seal_cipher *c);
bool ips_seal_encrypt(struct ips_seal_cipher *c, const uint8_t *head, uint64_t sequence, const uint8_t *plain,
                      size_t n, uint8_t *out); /* out: n octets and the tag */
bool ips_seal_decrypt(struct ips_seal_cipher *c, const uint8_t *head, uint64_t sequence,
                      const uint8_t *sealed, size_t n, uint8_t *out); /* n: without the tag */
struct ips_seal_keys *ips_seal_keys_new(const uint8_t *pair_key);
void ips_seal_keys_free(struct ips_seal_keys *k);
const uint8_t *ips_seal_keys_check(const struct ips_seal_keys *k); /* tells them apart */
bool ips_seal_mac(struct ips_seal_keys *k, const uint8_t *bytes, size_t n, uint8_t out[IPS_SEAL_MAC]);
bool ips_seal_equal(const uint8_t *a, const uint8_t *b, size_t n); /* in constant time */
/* Keys of both directions and the number of the stream with these nonces. */
bool ips_seal_derive(struct ips_seal_keys *k, const struct ips_seal_config *c, struct ips_seal_stream *st);
#endif
