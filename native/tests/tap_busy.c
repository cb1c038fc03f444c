/* tap_busy.c: a tap ends while another keeps its ring full. A worker makes records faster than the tap thread
 * can write them; the tap that is stopped has to end all the same, and every packet of the one that goes on
 * is either delivered or counted as lost. Built with SAN=thread it shows that worker, tap thread and control
 * do not race. Prints the packets that the worker made, and those that were delivered.
 */
#include "check.h"
#include "tap/tap.h"
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>

enum { FRAME = 64, PACKET = 60, PATIENCE_MS = 20000, AT_LEAST = 20000 };

static struct tap_worker worker;
static _Atomic bool finished;
static _Atomic uint64_t made; /* for taps that were in the set */

static void emit(void *arg, struct ips_pkt *p, int kind) { (void)arg, (void)p, (void)kind; }

static void *work(void *arg) {
  (void)arg;
  uint8_t bytes[PACKET] = {0x45};
  while (!atomic_load(&finished)) {
    tap_begin(&worker, IPS_OUTER);
    for (int i = 0; i < FRAME && worker.set; i++) {
      struct ips_pkt p = {.data = bytes, .len = PACKET, .total_len = PACKET, .counter = IPS_NONE};
      tap_before(&worker, &p);
      tap_verdict(&worker, &p, IPS_NO_BINDING);
      atomic_fetch_add(&made, 1);
    }
    tap_end(&worker);
  }
  return NULL;
}

/* A collector that never reads: a system call for each packet, so the tap thread is the slower one by far. */
static uint16_t collector(void) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof name;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&name, bytes) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&name, &bytes) == 0);
  return ntohs(name.sin_port);
}

static uint32_t start(struct taps *t, uint16_t port) {
  const struct ips_ctl_tap rule = {.target = IPS_TAP_COLLECTOR, .flags = IPS_TAP_BEFORE, .sides = 1,
                                   .sample = 1, .collector_port = port, .collector = {127, 0, 0, 1},
                                   .collector_family = 4};
  const char *sentence;
  uint32_t slot;
  CHECK(tap_start(t, &rule, -1, -1, &slot, &sentence) == IPS_CTL_OK);
  return slot;
}

/* Until the tap has ended; its last state. */
static struct ips_ctl_tap_state stop(struct taps *t, uint32_t slot, int wake_event) {
  struct ips_ctl_tap_state state;
  tap_stop(t, slot);
  for (tap_state(t, slot, &state); state.status != IPS_TAP_ENDED; tap_state(t, slot, &state)) {
    struct pollfd wait = {.fd = wake_event, .events = POLLIN};
    uint64_t count;
    CHECK(poll(&wait, 1, PATIENCE_MS) == 1 && read(wake_event, &count, sizeof count) > 0);
    taps_tick(t);
  }
  tap_release(t, slot);
  return state;
}

int main(void) {
  struct tap_worker *workers[] = {&worker};
  struct tap_host host = {.workers = workers, .n_workers = 1, .wake_event = eventfd(0, EFD_NONBLOCK),
                          .stop_event = eventfd(0, EFD_NONBLOCK), .device = {"outer", "inner"},
                          .application = "tap_busy"};
  struct ips_tables *tables = ips_tables_new(1);
  worker.core = ips_worker_new(tables, 0, emit, NULL);
  struct taps *taps = taps_create(&host);
  CHECK(tables && worker.core && taps);
  uint16_t port = collector();
  uint32_t goes_on = start(taps, port), ends = start(taps, port);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
  while (atomic_load(&made) < AT_LEAST) sched_yield();
  struct ips_ctl_tap_state first = stop(taps, ends, host.wake_event);
  CHECK(first.packets > 0);
  while (atomic_load(&made) < 2 * AT_LEAST) sched_yield();
  atomic_store(&finished, true);
  pthread_join(thread, NULL);
  struct ips_ctl_tap_state last = stop(taps, goes_on, host.wake_event);
  CHECK(last.packets + last.lost_ring + last.lost_target == atomic_load(&made));
  CHECK(last.packets > first.packets);
  tap_signal(host.stop_event);
  taps_destroy(taps);
  ips_worker_free((struct ips_worker *)(uintptr_t)worker.core);
  ips_tables_free(tables);
  printf("%llu %llu\n", (unsigned long long)atomic_load(&made), (unsigned long long)last.packets);
  return 0;
}
