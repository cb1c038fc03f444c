/* rt_witness.c: the engine's side of a witness over real sockets, in one thread; in another a witness that also
 * sends what a good one would not: rubbish, its own answers again and cut.
 *
 * Claims: each question that is heard of is one that was asked, no answer counts twice, and all of it goes on
 * until enough was answered. Under ThreadSanitizer and AddressSanitizer: neither finds anything.
 */
#define _GNU_SOURCE
#include "check.h"
#include "../ips_core.h"
#include "../ips_pair.h"
#include "../ips_seal.h"
#include "../ips_witness_api.h"
#include "../rt/rt_witness.h"
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { ENOUGH = 300, ROOM = 2048 };
#define S 1000000000ull
static int served;       /* the witness's socket */
static uint32_t ended;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_BOOTTIME, &t);
  return (uint64_t)t.tv_sec * S + (uint64_t)t.tv_nsec;
}

static void octets(void *arg, uint8_t *out, size_t n) {
  (void)arg;
  CHECK(getrandom(out, n, 0) == (ssize_t)n);
}

static void say(const uint8_t *bytes, size_t n, const struct sockaddr_in *to) {
  CHECK(sendto(served, bytes, n, 0, (const struct sockaddr *)to, sizeof *to) == (ssize_t)n);
}

/* What is no answer, or was one before. */
static void mischief(const uint8_t *sealed, size_t n, const struct sockaddr_in *to, uint32_t turn) {
  uint8_t other[ROOM];
  memcpy(other, sealed, n);
  say(other, n, to);
  say(other, turn % n, to);
  other[turn % n] ^= (uint8_t)(1 << turn % 8);
  say(other, n, to);
  octets(NULL, other, sizeof other);
  other[0] = (uint8_t)(turn % 3);
  say(other, turn % sizeof other, to);
}

static void *witness(void *unused) {
  struct ips_seal_config c = {.boot = 7, .n_keys = 1, .key_numbers = {1}, .hello_ns = S / 20,
                              .silence_ns = S};
  struct ips_witness rules;
  uint8_t in[ROOM], plain[ROOM], out[IPS_SEAL_DATAGRAM], type;
  struct sockaddr_in from;
  (void)unused;
  snprintf((char *)c.id, sizeof c.id, "witness");
  snprintf((char *)c.peer, sizeof c.peer, "1");
  memset(c.keys[0], 'w', sizeof c.keys[0]);
  struct ips_seal *seal = ips_seal_new(&c, octets, NULL);
  CHECK(seal);
  ips_witness_start(&rules, (struct ips_pair_epoch){.counter = 1, .node = 2}, 0, S, now());
  for (uint32_t turn = 1; !__atomic_load_n(&ended, __ATOMIC_ACQUIRE);) {
    struct pollfd fd = {.fd = served, .events = POLLIN};
    socklen_t length = sizeof from;
    if (poll(&fd, 1, 20) < 1) continue;
    ssize_t n = recvfrom(served, in, sizeof in, 0, (struct sockaddr *)&from, &length);
    size_t bytes = 0;
    struct ips_witness_msg m;
    bool is_question = n > 0 &&
                       ips_seal_open(seal, in, (size_t)n, now(), &type, plain, &bytes) == IPS_SEAL_OK_ &&
                       type == IPS_SEAL_WITNESS && ips_witness_decode(plain, bytes, &m);
    for (size_t k; (k = ips_seal_tick(seal, now(), out)) != 0;) say(out, k, &from);
    if (!is_question) continue;
    m.answer = (uint8_t)ips_witness_judge(&rules, 1, &m, now());
    m.kind = IPS_WITNESS_ANSWER;
    m.highest = rules.granted;
    ips_witness_encode(&m, plain);
    size_t k = ips_seal_wrap(seal, IPS_SEAL_WITNESS, plain, IPS_WITNESS_BYTES, now(), out);
    if (!k) continue;
    say(out, k, &from);
    mischief(out, k, &from, turn++);
  }
  ips_seal_free(seal);
  return NULL;
}

static void node(const struct ips_ctl_pair *set) {
  static uint64_t heard[ENOUGH];
  struct rt_witness w;
  uint64_t asked = 0;
  CHECK(rt_witness_start(&w, set, 9, octets));
  for (uint32_t n = 0; n < ENOUGH;) {
    struct ips_witness_msg m;
    rt_witness_tick(&w, &set->witness, now());
    struct ips_pair_action ask = {.kind = IPS_PAIR_ASK, .value = 5 + n / 50, .at_ns = asked = now()};
    rt_witness_say(&w, &ask, set->witness.ttl_ns, asked);
    struct pollfd fd = {.fd = w.fd, .events = POLLIN};
    poll(&fd, 1, 5);
    while (n < ENOUGH && rt_witness_hear(&w, &m, now())) {
      CHECK(m.asked_ns <= asked && (m.answer == IPS_PAIR_GRANTED || m.answer == IPS_PAIR_REFUSED));
      for (uint32_t i = 0; i < n; i++) CHECK(heard[i] != m.asked_ns);
      heard[n++] = m.asked_ns;
      CHECK(rt_witness_notes(&w, now()) == 0);
    }
  }
  rt_witness_stop(&w);
}

int main(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof at;
  struct ips_ctl_pair set = {.node_id = 1, .witness = {.family = 4, .ttl_ns = S}};
  pthread_t thread;
  served = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(bind(served, (struct sockaddr *)&at, sizeof at) == 0);
  CHECK(getsockname(served, (struct sockaddr *)&at, &length) == 0);
  memcpy(set.witness.address, &at.sin_addr, 4);
  set.witness.port = ntohs(at.sin_port);
  memset(set.witness.key, 'w', sizeof set.witness.key);
  CHECK(!pthread_create(&thread, NULL, witness, NULL));
  node(&set);
  __atomic_store_n(&ended, 1, __ATOMIC_RELEASE);
  pthread_join(thread, NULL);
  close(served);
  printf("%d answers\n", ENOUGH);
  return 0;
}
