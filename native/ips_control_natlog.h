/* ips_control_natlog.h: NAT logs on the control socket: who gets them, and how that goes.
 *
 * native/natlog/ is behind it. Messages as ips_control.h says. Read by cffi too.
 */
#ifndef IPS_CONTROL_NATLOG_H
#define IPS_CONTROL_NATLOG_H
#include "ips_control.h"
#include "ips_natlog_api.h"

enum ips_ctl_natlog_const { IPS_CTL_NATLOG_TARGETS = 8 };
enum ips_ctl_natlog_format { IPS_CTL_NATLOG_IPFIX = 1, IPS_CTL_NATLOG_SYSLOG = 2 };
struct ips_ctl_natlog_target { /* UDP */
  uint8_t address[16];         /* IPv4 in the first four bytes */
  uint16_t port;
  uint8_t family, format;      /* format: enum ips_ctl_natlog_format */
  uint8_t facility;            /* SYSLOG: 0 .. 23 */
  uint8_t reserved[3];
};
/* NATLOG_SET: all of it; no targets: no log. The same again: nothing. */
struct ips_ctl_natlog {
  uint32_t what;               /* enum ips_natlog_what */
  uint32_t domain;             /* IPFIX: observation domain */
  uint32_t template_s;         /* IPFIX: templates are sent again after so many seconds, 1 .. 86,400 */
  uint32_t n_targets;
  char host[64];               /* SYSLOG: the name of this node */
  struct ips_ctl_natlog_target targets[8];
};
struct ips_ctl_natlog_sent {
  uint64_t datagrams;          /* given to the system */
  uint64_t unsent;             /* that it refused; the log says so where the format can */
  int32_t last_errno;
  uint32_t reserved;
};
struct ips_ctl_natlog_state {
  uint64_t records, lost;      /* taken out of the rings; lost because a ring was full */
  uint32_t n_targets, what;
  struct ips_ctl_natlog_sent targets[8];
};
#endif
