/* traffic.c: packets and streams for the path benchmarks; compiled when they run, never installed.
 *
 *   flood DEVICE DESTINATION-MAC SOURCE DESTINATION SECONDS FLOWS RATE   64-byte UDP frames; RATE 0: as fast as it goes
 *   discard PORT                                                     takes one connection, counts, says when it listens
 *   stream ADDRESS PORT SECONDS                                      fills one connection with 256 kB writes
 *
 * flood hands ready-made frames to the device (AF_PACKET, no queue discipline, 64 a system call), so that making
 * them costs little beside forwarding them. Each command prints one line of JSON; cpu_ns is its own processor time,
 * which includes the kernel's work that is done in its context.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, FRAME = 60, CHUNK = 256 << 10 }; /* 60 bytes and the frame check sequence are 64 */

static const struct timeval PATIENCE = {.tv_sec = 5}; /* with a path that carries nothing */

static uint64_t now(int clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int broken(const char *what) {
  perror(what);
  return 1;
}

static int report(uint64_t began, uint64_t amount) {
  printf("{\"amount\": %llu, \"ns\": %llu, \"cpu_ns\": %llu}\n", (unsigned long long)amount,
         (unsigned long long)(now(CLOCK_MONOTONIC) - began), (unsigned long long)now(CLOCK_PROCESS_CPUTIME_ID));
  return 0;
}

static void sleep_until(uint64_t ns) {
  struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static uint16_t header_sum(const uint8_t *ip) {
  uint32_t sum = 0;
  for (int i = 0; i < 20; i += 2) sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons((uint16_t)~sum);
}

/* UDP checksum 0: none, so that neither side spends time on what the other does not. */
static void make_frame(uint8_t *f, const uint8_t *mac, in_addr_t from, in_addr_t to, unsigned flow) {
  memset(f, 0, FRAME);
  memcpy(f, mac, 6);
  f[6] = 2;
  f[12] = 8; /* ETH_P_IP */
  uint8_t *ip = f + 14;
  memcpy(ip, (uint8_t[]){0x45, 0, 0, FRAME - 14, 0, 0, 0x40, 0, 64, IPPROTO_UDP}, 10);
  memcpy(ip + 12, &from, 4);
  memcpy(ip + 16, &to, 4);
  uint16_t sum = header_sum(ip), port = htons((uint16_t)(10000 + flow)), length = htons(FRAME - 34), discard = htons(9);
  memcpy(ip + 10, &sum, 2);
  memcpy(ip + 20, &port, 2);
  memcpy(ip + 22, &discard, 2);
  memcpy(ip + 24, &length, 2);
}

static int flood(char **a) {
  unsigned flows = (unsigned)atoi(a[5]), mac[6];
  double rate = atof(a[6]);
  uint8_t to[6];
  if (sscanf(a[1], "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6 || !flows) return 2;
  for (int i = 0; i < 6; i++) to[i] = (uint8_t)mac[i];
  int fd = socket(AF_PACKET, SOCK_RAW, 0), on = 1, room = 8 << 20;
  struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(a[0])};
  if (fd < 0 || bind(fd, (struct sockaddr *)&link, sizeof link)) return broken("packet socket");
  if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on)) return broken("PACKET_QDISC_BYPASS");
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  uint8_t *frames = malloc((size_t)flows * FRAME);
  struct mmsghdr batch[BATCH];
  struct iovec part[BATCH];
  memset(batch, 0, sizeof batch);
  for (unsigned i = 0; i < flows; i++) make_frame(frames + i * FRAME, to, inet_addr(a[2]), inet_addr(a[3]), i);
  uint64_t began = now(CLOCK_MONOTONIC), end = began + (uint64_t)(atof(a[4]) * 1e9), sent = 0;
  for (unsigned flow = 0; now(CLOCK_MONOTONIC) < end;) {
    for (int i = 0; i < BATCH; i++, flow = flow + 1 == flows ? 0 : flow + 1) {
      part[i] = (struct iovec){frames + (size_t)flow * FRAME, FRAME};
      batch[i].msg_hdr.msg_iov = part + i;
      batch[i].msg_hdr.msg_iovlen = 1;
    }
    if (rate) sleep_until(began + (uint64_t)((double)sent * 1e9 / rate));
    int n = sendmmsg(fd, batch, BATCH, 0);
    if (n > 0) sent += (unsigned)n;
  }
  return report(began, sent);
}

static int discard(char **a) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(a[0]))};
  int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  char *room = malloc(CHUNK);
  uint64_t bytes = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &PATIENCE, sizeof PATIENCE);
  if (bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 1)) return broken("listen");
  puts("listening");
  fflush(stdout);
  int from = accept(fd, NULL, NULL);
  if (from < 0) return broken("accept");
  setsockopt(from, SOL_SOCKET, SO_RCVTIMEO, &PATIENCE, sizeof PATIENCE);
  uint64_t began = now(CLOCK_MONOTONIC);
  for (ssize_t n; (n = read(from, room, CHUNK)) > 0;) bytes += (uint64_t)n;
  return report(began, bytes);
}

static int stream(char **a) {
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(a[1])), .sin_addr.s_addr = inet_addr(a[0])};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  char *room = calloc(1, CHUNK);
  uint64_t bytes = 0;
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &PATIENCE, sizeof PATIENCE);
  if (connect(fd, (struct sockaddr *)&there, sizeof there)) return broken("connect");
  uint64_t began = now(CLOCK_MONOTONIC), end = began + (uint64_t)(atof(a[2]) * 1e9);
  for (ssize_t n = 0; n >= 0 && now(CLOCK_MONOTONIC) < end; bytes += (uint64_t)n)
    if ((n = write(fd, room, CHUNK)) < 0) return broken("write");
  return report(began, bytes);
}

int main(int argc, char **argv) {
  if (argc == 9 && !strcmp(argv[1], "flood")) return flood(argv + 2);
  if (argc == 3 && !strcmp(argv[1], "discard")) return discard(argv + 2);
  if (argc == 5 && !strcmp(argv[1], "stream")) return stream(argv + 2);
  return 2;
}
