/* ips_natlog_api.h: what a NAT did, for those who must say later who had a public port (DESIGN.md 11).
 *
 * The session table puts records into bounded rings, one for each worker: a full ring loses the record and
 * counts it; no packet ever waits. A thread of the host takes them out and turns them, sans I/O, into IPFIX
 * messages or syslog lines, which it sends. Time of a record: nanoseconds of the host's clock; who writes
 * messages adds what makes them Unix time. Read by cffi too.
 *
 * RFC 7011 (IPFIX), RFC 8158 (NAT events), RFC 5424 (syslog), RFC 6888 REQ-12 (why mappings are the default).
 */
#ifndef IPS_NATLOG_API_H
#define IPS_NATLOG_API_H
#include "ips_flow_api.h"

enum ips_natlog_event {         /* natEvent of RFC 8158 */
  IPS_NATLOG_SESSION_CREATE = 4,
  IPS_NATLOG_SESSION_DELETE = 5,
  IPS_NATLOG_MAPPING_CREATE = 8, /* "BIB entry" there: inside endpoint <-> public endpoint, no destination */
  IPS_NATLOG_MAPPING_DELETE = 9,
  IPS_NATLOG_PORTS_EXHAUSTED = 12,
  IPS_NATLOG_QUOTA = 13,
};
enum ips_natlog_quota {         /* natQuotaExceededEvent of RFC 8158 */
  IPS_NATLOG_QUOTA_SESSIONS = 1,
  IPS_NATLOG_QUOTA_MAPPINGS = 2,
  IPS_NATLOG_QUOTA_SOURCE = 3,
};
enum ips_natlog_what {          /* which of them are wanted, joined by "or" */
  IPS_NATLOG_SESSIONS = 1,
  IPS_NATLOG_MAPPINGS = 2,
  IPS_NATLOG_LIMITS = 4,        /* ports exhausted, quotas: of each kind and worker one a second */
};

struct ips_natlog_rec {
  struct ips_flow flow;         /* of mappings only the source, family, proto, realm */
  uint8_t mapped[16];
  uint64_t at_ns;
  uint64_t packets[2], bytes[2]; /* SESSION_DELETE: from the inside, towards it */
  uint32_t limit;               /* QUOTA: the number that is reached */
  uint16_t mapped_port;
  uint8_t event, quota;
  uint8_t from_outside;         /* 1: the session was begun by flow.dst */
  uint8_t reserved[7];
};

struct ips_natlog;
struct ips_natlog_stats { uint64_t put, lost, taken; };
/* records: of one ring, a power of two, 2 .. 2^20. NULL: no memory, or a number out of range. */
struct ips_natlog *ips_natlog_new(uint32_t workers, uint32_t records);
/* When no table that has it is used any more. */
void ips_natlog_free(struct ips_natlog *l);
/* Bits of enum ips_natlog_what; 0 at first. At any time. */
void ips_natlog_want(struct ips_natlog *l, uint32_t what);
/* By any thread; a worker >= workers shares a ring. False: its ring is full, the record is lost, counted. */
bool ips_natlog_put(struct ips_natlog *l, uint32_t worker, const struct ips_natlog_rec *r);
/* By one thread: up to `room` records, each ring's in its order; returns how many. */
size_t ips_natlog_take(struct ips_natlog *l, struct ips_natlog_rec *out, size_t room);
void ips_natlog_stats(const struct ips_natlog *l, struct ips_natlog_stats *out);

struct ips_sessions;
/* From now on the table tells l what it does; NULL: nobody. */
void ips_sessions_set_log(struct ips_sessions *t, struct ips_natlog *l);

/* ---- ips_natlog_ipfix.c ---- */

struct ips_ipfix {              /* one stream of messages; all collectors of it get the same ones */
  uint32_t domain;              /* observation domain */
  uint32_t sequence;            /* data records before the next message */
  uint64_t template_ns;         /* templates are sent again after so long */
  uint64_t templates_due_ns;    /* 0 at first: at once */
  uint64_t lost_told;           /* what the last record about losses said */
};
/* One message out of as many of the n records as `room` bytes hold; *used: so many. lost: records lost so
 * far, in rings and elsewhere; it is told when it has grown. unix_ns: Unix time at now_ns. Returns the
 * message's bytes; 0: nothing is to be said now, or room < 1,232, which holds all templates and a record. */
size_t ips_ipfix_message(struct ips_ipfix *x, const struct ips_natlog_rec *records, size_t n, size_t *used,
                         uint64_t lost, uint64_t now_ns, uint64_t unix_ns, uint8_t *out, size_t room);

/* ---- ips_natlog_syslog.c ---- */

struct ips_syslog { uint32_t facility, pid; char host[64]; }; /* host: "" is written as "-" */
enum { IPS_SYSLOG_LINE = 512 };
/* One RFC 5424 message without a newline; returns its length, 0: more than room. */
size_t ips_syslog_line(const struct ips_syslog *s, const struct ips_natlog_rec *r, uint64_t now_ns,
                       uint64_t unix_ns, char *out, size_t room);
size_t ips_syslog_lost(const struct ips_syslog *s, uint64_t lost, uint64_t unix_ns, char *out, size_t room);

#endif
