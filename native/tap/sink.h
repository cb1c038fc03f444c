/* sink.h: where the packets of a tap go.
 *
 * FILE: pcapng, through a buffer, never blocking: a pipe whose reader is slow loses
 * packets, counted. COLLECTOR: VXLAN (RFC 7348) over UDP, because it needs no privilege,
 * passes clouds and NATs, one `ip link add type vxlan` receives it, and Suricata, Zeek and
 * Wireshark decode it; ERSPAN and GRE need raw sockets at both ends, TZSP has few readers.
 * INTERFACE: AF_PACKET, to whatever listens there.
 */
#ifndef SINK_H
#define SINK_H
#include "../ips_control.h"
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

enum { SINK_BUFFER = 1 << 18 };

static inline uint64_t tap_clock_ns(int clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct tap_record;
struct tap_host;
struct sink {
  struct ips_ctl_tap rule;
  int fd;
  struct sockaddr_storage to;
  socklen_t to_bytes;
  uint8_t *buffer;                 /* FILE: what is not written yet */
  uint32_t used;
  uint32_t waiting;                /* packets in it, at most: those since it was last empty */
  _Atomic uint64_t packets, bytes, lost;
  _Atomic uint32_t last_errno;
};

/* Takes fd. Returns 0, or an errno with *sentence. */
int sink_open(struct sink *s, const struct ips_ctl_tap *rule, int fd, const struct tap_host *host,
              const char **sentence);
void sink_packet(struct sink *s, struct tap_record *r);
/* Writes out what waits; true if nothing waits any more. */
bool sink_flush(struct sink *s);
/* Gives a slow pipe a last, short time to take what waits; what it does not take is lost and counted. */
void sink_finish(struct sink *s);
void sink_close(struct sink *s);

/* pcapng.c: writes into `at` (room bytes), returns the length; 0: does not fit. */
size_t pcapng_header(uint8_t *at, size_t room, const char *const device[2], const char *application);
size_t pcapng_packet(uint8_t *at, size_t room, const struct tap_record *r, const uint8_t *data,
                     uint32_t kept);
#endif
