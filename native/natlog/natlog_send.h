/* natlog_send.h: what the files of native/natlog share: targets and their sockets, a turn of the thread.
 *
 * natlog.c decides when; natlog_send.c turns records into datagrams and sends them, 64 with one call.
 */
#ifndef NATLOG_SEND_H
#define NATLOG_SEND_H
#include "natlog.h"
#include <pthread.h>
#include <sys/socket.h>

enum { NATLOG_BATCH = 64, NATLOG_DATAGRAM = 1232 }; /* 1,280, the least MTU of IPv6, without its headers */

struct natlog_target {
  int fd;
  bool connected;
  uint64_t lost_told; /* SYSLOG */
  struct ips_ctl_natlog_sent sent;
};
struct natlog {
  pthread_mutex_t lock; /* of everything but the rings; no worker takes it */
  pthread_cond_t wake;
  pthread_t thread;
  bool running, stopping;
  uint32_t workers;
  struct ips_sessions *table;
  struct ips_natlog *rings;
  struct ips_ctl_natlog config;
  struct natlog_target targets[8];
  struct ips_ipfix ipfix;
  struct ips_syslog syslog;
  uint64_t taken;
  struct ips_natlog_rec records[NATLOG_BATCH];
  uint8_t bytes[NATLOG_BATCH][NATLOG_DATAGRAM];
  size_t sizes[NATLOG_BATCH];
};
/* With the lock held: everything in the rings, and what is due besides. */
void natlog_turn(struct natlog *n);
/* A socket for it, or -1 with errno. */
int natlog_open(const struct ips_ctl_natlog_target *t);
#endif
