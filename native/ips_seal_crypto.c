/* ips_seal_crypto.c: what the sealed channel asks of libcrypto (OpenSSL 3, EVP only).
 *
 * AES-256-GCM for datagrams, HMAC-SHA-256 for handshakes, HKDF-SHA-256 for keys. Contexts are made with the
 * channel; a datagram sets a nonce and nothing else. The nonce is four octets from the key derivation and
 * the sequence number; each direction has a key of its own. RFC 5116, RFC 5869.
 */
#include "ips_seal.h"
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <stdlib.h>

struct ips_seal_cipher {
  EVP_CIPHER_CTX *ctx;
  uint8_t salt[4];
};
struct ips_seal_keys {
  EVP_KDF_CTX *kdf;
  EVP_MAC_CTX *mac;
  uint8_t pair_key[IPS_SEAL_KEY];
  uint8_t check[IPS_SEAL_CHECK];
};

struct ips_seal_cipher *ips_seal_cipher_new(void) {
  struct ips_seal_cipher *c = calloc(1, sizeof *c);
  if (c && !(c->ctx = EVP_CIPHER_CTX_new())) {
    free(c);
    return NULL;
  }
  return c;
}

void ips_seal_cipher_free(struct ips_seal_cipher *c) {
  if (!c) return;
  EVP_CIPHER_CTX_free(c->ctx);
  OPENSSL_cleanse(c, sizeof *c);
  free(c);
}

static void nonce_of(const struct ips_seal_cipher *c, uint64_t sequence, uint8_t out[12]) {
  memcpy(out, c->salt, 4);
  sequence = ips_be64(sequence);
  memcpy(out + 4, &sequence, 8);
}

bool ips_seal_encrypt(struct ips_seal_cipher *c, const uint8_t *head, uint64_t sequence, const uint8_t *plain,
                      size_t n, uint8_t *out) {
  uint8_t nonce[12];
  int done = 0;
  nonce_of(c, sequence, nonce);
  return EVP_EncryptInit_ex(c->ctx, NULL, NULL, NULL, nonce) == 1 &&
         EVP_EncryptUpdate(c->ctx, NULL, &done, head, IPS_SEAL_HEAD) == 1 &&
         (n == 0 || EVP_EncryptUpdate(c->ctx, out, &done, plain, (int)n) == 1) &&
         EVP_EncryptFinal_ex(c->ctx, out + n, &done) == 1 &&
         EVP_CIPHER_CTX_ctrl(c->ctx, EVP_CTRL_AEAD_GET_TAG, IPS_SEAL_TAG, out + n) == 1;
}

bool ips_seal_decrypt(struct ips_seal_cipher *c, const uint8_t *head, uint64_t sequence,
                      const uint8_t *sealed, size_t n, uint8_t *out) {
  uint8_t nonce[12], tag[IPS_SEAL_TAG];
  int done = 0;
  nonce_of(c, sequence, nonce);
  memcpy(tag, sealed + n, sizeof tag); /* libcrypto wants to be allowed to write */
  return EVP_DecryptInit_ex(c->ctx, NULL, NULL, NULL, nonce) == 1 &&
         EVP_DecryptUpdate(c->ctx, NULL, &done, head, IPS_SEAL_HEAD) == 1 &&
         (n == 0 || EVP_DecryptUpdate(c->ctx, out, &done, sealed, (int)n) == 1) &&
         EVP_CIPHER_CTX_ctrl(c->ctx, EVP_CTRL_AEAD_SET_TAG, IPS_SEAL_TAG, tag) == 1 &&
         EVP_DecryptFinal_ex(c->ctx, out + n, &done) == 1;
}

/* ---- keys ----------------------------------------------------------------- */

static bool hkdf(struct ips_seal_keys *k, const uint8_t *salt, size_t salt_len, const uint8_t *info,
                 size_t info_len, uint8_t *out, size_t n) {
  OSSL_PARAM with[] = {
    OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
    OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, k->pair_key, sizeof k->pair_key),
    OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_len),
    OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_len),
    OSSL_PARAM_construct_end(),
  };
  EVP_KDF_CTX_reset(k->kdf);
  return EVP_KDF_derive(k->kdf, out, n, with) == 1;
}

static const uint8_t own_salt[16] = "ipshare seal v1";

static bool start_mac(struct ips_seal_keys *k) {
  uint8_t key[32];
  EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
  k->mac = mac ? EVP_MAC_CTX_new(mac) : NULL;
  EVP_MAC_free(mac);
  OSSL_PARAM with[] = {
    OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0), OSSL_PARAM_construct_end()};
  bool fine = k->mac && hkdf(k, own_salt, sizeof own_salt, (const uint8_t *)"hello", 5, key, sizeof key) &&
              EVP_MAC_init(k->mac, key, sizeof key, with) == 1;
  OPENSSL_cleanse(key, sizeof key);
  return fine;
}

struct ips_seal_keys *ips_seal_keys_new(const uint8_t *pair_key) {
  struct ips_seal_keys *k = calloc(1, sizeof *k);
  if (!k) return NULL;
  memcpy(k->pair_key, pair_key, sizeof k->pair_key);
  EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
  k->kdf = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
  EVP_KDF_free(kdf);
  if (k->kdf && start_mac(k) &&
      hkdf(k, own_salt, sizeof own_salt, (const uint8_t *)"check", 5, k->check, sizeof k->check))
    return k;
  ips_seal_keys_free(k);
  return NULL;
}

void ips_seal_keys_free(struct ips_seal_keys *k) {
  if (!k) return;
  EVP_KDF_CTX_free(k->kdf);
  EVP_MAC_CTX_free(k->mac);
  OPENSSL_cleanse(k, sizeof *k);
  free(k);
}

const uint8_t *ips_seal_keys_check(const struct ips_seal_keys *k) { return k->check; }

bool ips_seal_mac(struct ips_seal_keys *k, const uint8_t *bytes, size_t n, uint8_t out[IPS_SEAL_MAC]) {
  size_t done;
  return EVP_MAC_init(k->mac, NULL, 0, NULL) == 1 && EVP_MAC_update(k->mac, bytes, n) == 1 &&
         EVP_MAC_final(k->mac, out, &done, IPS_SEAL_MAC) == 1 && done == IPS_SEAL_MAC;
}

bool ips_seal_equal(const uint8_t *a, const uint8_t *b, size_t n) { return CRYPTO_memcmp(a, b, n) == 0; }

/* from -> to; the nonces are the salt, the lower id's first: both sides get the same. */
static bool derive_cipher(struct ips_seal_keys *k, const uint8_t *salt, const uint8_t *from,
                          const uint8_t *to, bool encrypts, struct ips_seal_cipher *c) {
  uint8_t info[1 + 2 * IPS_SEAL_ID] = {'d'}, key[IPS_SEAL_KEY + 4];
  memcpy(info + 1, from, IPS_SEAL_ID);
  memcpy(info + 1 + IPS_SEAL_ID, to, IPS_SEAL_ID);
  bool fine = hkdf(k, salt, 2 * IPS_SEAL_NONCE, info, sizeof info, key, sizeof key) &&
              EVP_CipherInit_ex(c->ctx, EVP_aes_256_gcm(), NULL, key, NULL, encrypts) == 1;
  memcpy(c->salt, key + IPS_SEAL_KEY, 4);
  OPENSSL_cleanse(key, sizeof key);
  return fine;
}

bool ips_seal_derive(struct ips_seal_keys *k, const struct ips_seal_config *c, struct ips_seal_stream *st) {
  uint8_t salt[2 * IPS_SEAL_NONCE], number[4];
  bool own_first = memcmp(c->id, c->peer, IPS_SEAL_ID) < 0;
  memcpy(salt, own_first ? st->own_nonce : st->peer_nonce, IPS_SEAL_NONCE);
  memcpy(salt + IPS_SEAL_NONCE, own_first ? st->peer_nonce : st->own_nonce, IPS_SEAL_NONCE);
  if (!hkdf(k, salt, sizeof salt, (const uint8_t *)"number", 6, number, sizeof number)) return false;
  st->number = ips_ld32(number);
  return derive_cipher(k, salt, c->id, c->peer, true, st->out) &&
         derive_cipher(k, salt, c->peer, c->id, false, st->in);
}
