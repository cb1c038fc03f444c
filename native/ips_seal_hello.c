/* ips_seal_hello.c: the three handshake messages of the sealed channel.
 *
 * One layout for all three: form 1 | type | key number | 0 | key check (8) | newest, oldest version | items
 * | 0 | sender's id (16) | receiver's id (16) | boot id (8) | nonce (16) | echoed nonce (16) | items of
 * name (16) and digest (8) | whatever a later version adds | HMAC (32). A hello (echo 0) is answered by a
 * hello-ack and changes nothing; a hello-ack or confirm counts only if it echoes the nonce that waits here
 * for exactly one stream. Nothing is read before the HMAC was compared but what chooses the key.
 */
#include "ips_seal.h"

enum { CHECK = 4, NEWEST = 12, OLDEST = 13, N_ITEMS = 14, FROM = 16, TO = 32, BOOT = 48, NONCE = 56,
       ECHO = 72, ITEMS = 88, ITEM = IPS_SEAL_NAME + 8, MOST_ITEMS = 32 };

size_t ips_seal_hello(struct ips_seal *s, uint8_t type, unsigned key, const uint8_t *nonce,
                      const uint8_t *echo, uint8_t *out) {
  const struct ips_seal_config *c = &s->c;
  memset(out, 0, ITEMS);
  out[0] = 1, out[1] = type, out[2] = c->key_numbers[key];
  memcpy(out + CHECK, ips_seal_keys_check(s->keys[key]), IPS_SEAL_CHECK);
  out[NEWEST] = c->version, out[OLDEST] = c->oldest, out[N_ITEMS] = c->n_items;
  memcpy(out + FROM, c->id, IPS_SEAL_ID);
  memcpy(out + TO, c->peer, IPS_SEAL_ID);
  uint64_t boot = ips_be64(c->boot);
  memcpy(out + BOOT, &boot, 8);
  memcpy(out + NONCE, nonce, IPS_SEAL_NONCE);
  if (echo) memcpy(out + ECHO, echo, IPS_SEAL_NONCE);
  uint8_t *at = out + ITEMS;
  for (unsigned i = 0; i < c->n_items; i++, at += ITEM) {
    uint64_t digest = ips_be64(c->items[i].digest);
    memcpy(at, c->items[i].name, IPS_SEAL_NAME);
    memcpy(at + IPS_SEAL_NAME, &digest, 8);
  }
  size_t n = (size_t)(at - out);
  return ips_seal_mac(s->keys[key], out, n, out + n) ? n + IPS_SEAL_MAC : 0;
}

static const uint8_t *item_called(const uint8_t *d, const char *name) {
  for (unsigned i = 0; i < d[N_ITEMS]; i++)
    if (memcmp(d + ITEMS + i * ITEM, name, IPS_SEAL_NAME) == 0) return d + ITEMS + i * ITEM;
  return NULL;
}

static void compare_items(struct ips_seal *s, const uint8_t *d) {
  unsigned both = 0;
  s->mismatch = 0;
  for (unsigned i = 0; i < s->c.n_items; i++) {
    const uint8_t *theirs = item_called(d, s->c.items[i].name);
    if (theirs) both++;
    if (!theirs || ips_be64(ips_ld64(theirs + IPS_SEAL_NAME)) != s->c.items[i].digest)
      s->mismatch |= (uint16_t)(1u << i);
  }
  s->unknown_items = (uint16_t)(d[N_ITEMS] > both ? d[N_ITEMS] - both : 0);
}

/* Both nonces are fresh: the stream they make replaces the one in use. The nonce is spent. */
static int open_stream(struct ips_seal *s, const uint8_t *d, unsigned key, uint64_t now_ns) {
  struct ips_seal_stream *st = &s->streams[s->now ^ 1];
  *st = (struct ips_seal_stream){.out = st->out, .in = st->in, .opened_ns = now_ns,
                                 .version = d[NEWEST] < s->c.version ? d[NEWEST] : s->c.version,
                                 .key_number = s->c.key_numbers[key],
                                 .is_first_to_speak = d[1] == IPS_SEAL_HELLO_ACK};
  memcpy(st->own_nonce, s->nonce, IPS_SEAL_NONCE);
  memcpy(st->peer_nonce, d + NONCE, IPS_SEAL_NONCE);
  s->random(s->random_arg, s->nonce, IPS_SEAL_NONCE);
  if (!ips_seal_derive(s->keys[key], &s->c, st)) return IPS_SEAL_BAD_MAC_;
  st->is_open = true;
  st->is_heard = d[1] == IPS_SEAL_CONFIRM;
  s->now ^= 1;
  s->opened++;
  s->other_version = false;
  uint64_t boot = ips_be64(ips_ld64(d + BOOT));
  s->same_boot = boot == s->peer_boot;
  s->peer_boot = boot;
  s->heard_ns = now_ns;
  s->confirm_due_ns = now_ns;
  s->spoke_ns = 0; /* a sign of life at the next tick: it tells the peer that the stream is open here too */
  s->hello_due_ns = now_ns + s->c.hello_ns;
  compare_items(s, d);
  return IPS_SEAL_OPENED_;
}

static bool may_answer(struct ips_seal *s, uint64_t now_ns) {
  uint64_t each = s->c.hello_ns / 16 + 1, more = (now_ns - s->answers_ns) / each;
  if (more) {
    uint32_t missing = IPS_SEAL_ANSWERS - s->answers_left;
    s->answers_left += more < missing ? (uint32_t)more : missing;
    s->answers_ns = now_ns;
  }
  if (s->answers_left == 0) return false;
  s->answers_left--;
  return true;
}

static int judge(struct ips_seal *s, const uint8_t *d, size_t len, unsigned *key) {
  if (len < ITEMS + IPS_SEAL_MAC || len > IPS_SEAL_DATAGRAM) return IPS_SEAL_SHORT_;
  for (*key = 0; *key < s->c.n_keys && s->c.key_numbers[*key] != d[2]; ++*key);
  if (*key == s->c.n_keys) return IPS_SEAL_UNKNOWN_KEY_;
  if (memcmp(d + CHECK, ips_seal_keys_check(s->keys[*key]), IPS_SEAL_CHECK) != 0) return IPS_SEAL_WRONG_KEY_;
  uint8_t mac[IPS_SEAL_MAC];
  if (!ips_seal_mac(s->keys[*key], d, len - IPS_SEAL_MAC, mac) ||
      !ips_seal_equal(mac, d + len - IPS_SEAL_MAC, IPS_SEAL_MAC))
    return IPS_SEAL_BAD_MAC_;
  if (d[N_ITEMS] > MOST_ITEMS || len < ITEMS + d[N_ITEMS] * (size_t)ITEM + IPS_SEAL_MAC)
    return IPS_SEAL_SHORT_;
  if (memcmp(d + FROM, s->c.peer, IPS_SEAL_ID) != 0) return IPS_SEAL_NOT_PEER_;
  if (memcmp(d + TO, s->c.id, IPS_SEAL_ID) != 0) return IPS_SEAL_NOT_FOR_US_;
  if (d[NEWEST] < d[OLDEST] || d[NEWEST] < s->c.oldest || d[OLDEST] > s->c.version) return IPS_SEAL_VERSION_;
  return IPS_SEAL_OK_;
}

int ips_seal_take_hello(struct ips_seal *s, const uint8_t *d, size_t len, uint64_t now_ns) {
  unsigned key;
  int result = judge(s, d, len, &key);
  if (result == IPS_SEAL_VERSION_) s->other_version = true;
  if (result != IPS_SEAL_OK_) return result;
  if (d[1] == IPS_SEAL_HELLO) {
    if (!may_answer(s, now_ns)) return IPS_SEAL_LIMITED_;
    s->answer.type = IPS_SEAL_HELLO_ACK, s->answer.key = (uint8_t)key, s->answer.is_due = true;
    memcpy(s->answer.peer_nonce, d + NONCE, IPS_SEAL_NONCE);
    return IPS_SEAL_ANSWERED_;
  }
  if (ips_seal_equal(d + ECHO, s->nonce, IPS_SEAL_NONCE)) return open_stream(s, d, key, now_ns);
  const struct ips_seal_stream *st = &s->streams[s->now];
  bool is_this = st->is_open && memcmp(d + ECHO, st->own_nonce, IPS_SEAL_NONCE) == 0 &&
                 memcmp(d + NONCE, st->peer_nonce, IPS_SEAL_NONCE) == 0;
  return is_this ? IPS_SEAL_CONFIRMED_ : IPS_SEAL_STALE_;
}
