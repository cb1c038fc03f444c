/* ips_seal.c: the life of a sealed channel, and its datagrams (contract in ips_seal_api.h).
 *
 * Who opens a stream by a hello-ack speaks first: it repeats its confirm until the peer is heard in that
 * stream, and until then its users' datagrams go by the old one. Who is not heard for silence_ns is
 * greeted again; the old stream stays usable meanwhile.
 */
#include "ips_seal.h"
#include <stdlib.h>

static const struct { const char *name, *text; } results[] = {
#define S(name, text) {#name, text},
#include "ips_seal.def"
#undef S
};

int ips_seal_count(void) { return IPS_SEAL_N_RESULTS; }
const char *ips_seal_name(int r) { return r >= 0 && r < IPS_SEAL_N_RESULTS ? results[r].name : NULL; }
const char *ips_seal_text(int r) { return r >= 0 && r < IPS_SEAL_N_RESULTS ? results[r].text : NULL; }
uint64_t ips_seal_counter(const struct ips_seal *s, int r) {
  return r >= 0 && r < IPS_SEAL_N_RESULTS ? s->counters[r] : 0;
}

/* ---- beginning and end ------------------------------------------------------ */

int ips_seal_set_keys(struct ips_seal *s, const uint8_t (*keys)[32], const uint8_t *numbers, uint8_t n) {
  if (n < 1 || n > 2 || (n == 2 && numbers[0] == numbers[1])) return -1;
  struct ips_seal_keys *made[2] = {ips_seal_keys_new(keys[0]), n == 2 ? ips_seal_keys_new(keys[1]) : NULL};
  if (!made[0] || (n == 2 && !made[1])) {
    for (unsigned i = 0; i < 2; i++) ips_seal_keys_free(made[i]);
    return -1;
  }
  for (unsigned i = 0; i < 2; i++) {
    ips_seal_keys_free(s->keys[i]);
    s->keys[i] = made[i];
    s->c.key_numbers[i] = i < n ? numbers[i] : 0;
  }
  memset(s->c.keys, 0, sizeof s->c.keys); /* they are in `keys` now */
  s->c.n_keys = n;
  s->answer.is_due = false;
  s->hello_due_ns = 0;
  return 0;
}

struct ips_seal *ips_seal_new(const struct ips_seal_config *c, ips_random_fn random, void *arg) {
  struct ips_seal_config full = *c;
  if (!full.version) full.version = IPS_SEAL_VERSION;
  if (!full.oldest) full.oldest = IPS_SEAL_OLDEST;
  if (!full.rekey_after) full.rekey_after = 1ull << 28;
  if (full.oldest > full.version || full.n_items > IPS_SEAL_ITEMS || !full.hello_ns || !random ||
      full.silence_ns <= full.hello_ns || memcmp(c->id, c->peer, IPS_SEAL_ID) == 0)
    return NULL;
  struct ips_seal *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->c = full;
  s->random = random, s->random_arg = arg;
  s->answers_left = IPS_SEAL_ANSWERS;
  bool fine = ips_seal_set_keys(s, c->keys, c->key_numbers, c->n_keys) == 0;
  for (unsigned i = 0; i < 2; i++) {
    s->streams[i].out = ips_seal_cipher_new();
    s->streams[i].in = ips_seal_cipher_new();
    fine = fine && s->streams[i].out && s->streams[i].in;
  }
  if (!fine) {
    ips_seal_free(s);
    return NULL;
  }
  random(arg, s->nonce, sizeof s->nonce);
  return s;
}

void ips_seal_free(struct ips_seal *s) {
  if (!s) return;
  for (unsigned i = 0; i < 2; i++) {
    ips_seal_keys_free(s->keys[i]);
    ips_seal_cipher_free(s->streams[i].out);
    ips_seal_cipher_free(s->streams[i].in);
  }
  free(s);
}

/* ---- replay window (RFC 6479) ------------------------------------------------ */

static int judge_sequence(const struct ips_seal_stream *st, uint64_t seq) {
  if (seq > st->top) return IPS_SEAL_OK_;
  if (seq == 0 || seq / 64 + IPS_SEAL_WORDS <= st->top / 64) return IPS_SEAL_TOO_OLD_;
  return st->seen[seq / 64 % IPS_SEAL_WORDS] >> seq % 64 & 1 ? IPS_SEAL_REPLAYED_ : IPS_SEAL_OK_;
}

static void mark_sequence(struct ips_seal_stream *st, uint64_t seq) {
  if (seq > st->top) {
    uint64_t words = seq / 64 - st->top / 64;
    if (words > IPS_SEAL_WORDS) words = IPS_SEAL_WORDS;
    for (uint64_t i = 0; i < words; i++) st->seen[(seq / 64 - i) % IPS_SEAL_WORDS] = 0;
    st->top = seq;
  }
  st->seen[seq / 64 % IPS_SEAL_WORDS] |= 1ull << seq % 64;
}

/* ---- datagrams ----------------------------------------------------------------- */

static int open_sealed(struct ips_seal *s, const uint8_t *d, size_t len, uint64_t now_ns, uint8_t *plain,
                       size_t *plain_len) {
  struct ips_seal_stream *st = &s->streams[s->now];
  if (len < IPS_SEAL_OVERHEAD || len > IPS_SEAL_DATAGRAM) return IPS_SEAL_SHORT_;
  if (!st->is_open) return IPS_SEAL_NO_STREAM_;
  bool is_old = ips_ld32(d + 4) != st->number;
  if (is_old) st = &s->streams[s->now ^ 1];
  if (!st->is_open || ips_ld32(d + 4) != st->number) return IPS_SEAL_OTHER_STREAM_;
  uint64_t seq = ips_be64(ips_ld64(d + 8));
  int result = judge_sequence(st, seq);
  if (result != IPS_SEAL_OK_) return result;
  size_t n = len - IPS_SEAL_OVERHEAD;
  if (!ips_seal_decrypt(st->in, d, seq, d + IPS_SEAL_HEAD, n, plain)) return IPS_SEAL_FORGED_;
  mark_sequence(st, seq);
  if (!is_old) {
    st->is_heard = true;
    s->heard_ns = now_ns;
    if (now_ns - st->opened_ns >= s->c.silence_ns) s->streams[s->now ^ 1].is_open = false;
  }
  *plain_len = n;
  return d[1] == IPS_SEAL_ALIVE ? IPS_SEAL_KEEPALIVE_ : IPS_SEAL_OK_;
}

int ips_seal_open(struct ips_seal *s, const uint8_t *d, size_t len, uint64_t now_ns, uint8_t *type,
                  uint8_t *plain, size_t *plain_len) {
  int result;
  bool is_handshake = len >= IPS_SEAL_OVERHEAD && d[1] >= IPS_SEAL_HELLO && d[1] <= IPS_SEAL_CONFIRM;
  if (len < IPS_SEAL_OVERHEAD) result = IPS_SEAL_SHORT_;
  else if (d[0] != 1 || d[3] != 0) result = IPS_SEAL_FORM_;
  else if (is_handshake) result = ips_seal_take_hello(s, d, len, now_ns);
  else if (d[1] != IPS_SEAL_ALIVE && d[1] < IPS_SEAL_FIRST_USER) result = IPS_SEAL_TYPE_;
  else result = open_sealed(s, d, len, now_ns, plain, plain_len);
  s->counters[result]++;
  if (result == IPS_SEAL_OK_) *type = d[1];
  return result;
}

static size_t wrap(struct ips_seal *s, struct ips_seal_stream *st, uint8_t type, const uint8_t *plain,
                   size_t n,
                   uint64_t now_ns, uint8_t *out) {
  if (!st->is_open || n > IPS_SEAL_DATAGRAM - IPS_SEAL_OVERHEAD) return 0;
  uint64_t seq = ++st->sent, seq_be = ips_be64(seq);
  out[0] = 1, out[1] = type, out[2] = st->key_number, out[3] = 0;
  ips_st32(out + 4, st->number);
  memcpy(out + 8, &seq_be, 8);
  if (!ips_seal_encrypt(st->out, out, seq, plain, n, out + IPS_SEAL_HEAD)) return 0;
  s->spoke_ns = now_ns;
  return n + IPS_SEAL_OVERHEAD;
}

size_t ips_seal_wrap(struct ips_seal *s, uint8_t type, const uint8_t *plain, size_t n, uint64_t now_ns,
                     uint8_t *out) {
  struct ips_seal_stream *st = &s->streams[s->now], *before = &s->streams[s->now ^ 1];
  bool peer_may_not_have_it = st->is_first_to_speak && !st->is_heard && before->is_open && s->same_boot;
  if (peer_may_not_have_it) st = before;
  return type < IPS_SEAL_FIRST_USER ? 0 : wrap(s, st, type, plain, n, now_ns, out);
}

/* ---- ticks --------------------------------------------------------------------- */

static unsigned key_called(const struct ips_seal *s, uint8_t number) {
  return s->c.n_keys == 2 && s->c.key_numbers[1] == number ? 1 : 0;
}

static bool wants_stream(const struct ips_seal *s, uint64_t now_ns, uint64_t *again_ns) {
  const struct ips_seal_stream *st = &s->streams[s->now];
  *again_ns = s->c.hello_ns;
  if (!st->is_open || now_ns - s->heard_ns >= s->c.silence_ns) return true;
  *again_ns = 10 * s->c.hello_ns; /* there is one that works: no hurry */
  return st->key_number != s->c.key_numbers[0] || st->sent >= s->c.rekey_after;
}

size_t ips_seal_tick(struct ips_seal *s, uint64_t now_ns, uint8_t *out) {
  struct ips_seal_stream *st = &s->streams[s->now];
  uint64_t again_ns;
  if (st->is_open && st->is_first_to_speak && !st->is_heard && now_ns >= s->confirm_due_ns) {
    s->confirm_due_ns = now_ns + s->c.hello_ns;
    return ips_seal_hello(s, IPS_SEAL_CONFIRM, key_called(s, st->key_number), st->own_nonce, st->peer_nonce,
                          out);
  }
  if (s->answer.is_due) {
    s->answer.is_due = false;
    return ips_seal_hello(s, s->answer.type, s->answer.key, s->nonce, s->answer.peer_nonce, out);
  }
  if (wants_stream(s, now_ns, &again_ns) && now_ns >= s->hello_due_ns) {
    s->hello_due_ns = now_ns + again_ns;
    return ips_seal_hello(s, IPS_SEAL_HELLO, 0, s->nonce, NULL, out);
  }
  if (st->is_open && now_ns - s->spoke_ns >= s->c.silence_ns / 4)
    return wrap(s, st, IPS_SEAL_ALIVE, NULL, 0, now_ns, out);
  return 0;
}

void ips_seal_info(const struct ips_seal *s, uint64_t now_ns, struct ips_seal_info *out) {
  const struct ips_seal_stream *st = &s->streams[s->now];
  *out = (struct ips_seal_info){
    .open = st->is_open, .alive = st->is_open && now_ns - s->heard_ns < s->c.silence_ns,
    .other_version = s->other_version, .version = st->version, .key_number = st->key_number, .mismatch = s->mismatch,
    .unknown_items = s->unknown_items, .peer_boot = s->peer_boot, .opened = s->opened,
      .heard_ns = s->heard_ns};
}
