/* ips_natlog_syslog.c: log records as RFC 5424 messages, one line each.
 *
 * MSGID names the event; what there is to say are key=value pairs in MSG, in a fixed order: structured data
 * of one's own would need an enterprise number. Addresses as RFC 5952 writes them, IPv6 with a port in
 * brackets. Severity: informational, of limits and losses warning.
 */
#include "ips_core.h"
#include "ips_natlog_api.h"
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

enum { INFORMATIONAL = 6, WARNING = 4 };
struct line { char *at; size_t used, room; };

__attribute__((format(printf, 2, 3))) static void say(struct line *l, const char *format, ...) {
  va_list args;
  va_start(args, format);
  size_t left = l->used < l->room ? l->room - l->used : 0;
  int n = vsnprintf(left ? l->at + l->used : NULL, left, format, args);
  va_end(args);
  l->used += n > 0 ? (size_t)n : 0;
}

static const char *name_of(const struct ips_natlog_rec *r) {
  switch (r->event) {
  case IPS_NATLOG_SESSION_CREATE: return "SESSION-CREATE";
  case IPS_NATLOG_SESSION_DELETE: return "SESSION-DELETE";
  case IPS_NATLOG_MAPPING_CREATE: return "MAPPING-CREATE";
  case IPS_NATLOG_MAPPING_DELETE: return "MAPPING-DELETE";
  case IPS_NATLOG_PORTS_EXHAUSTED: return "PORTS-EXHAUSTED";
  case IPS_NATLOG_QUOTA: return "QUOTA-EXCEEDED";
  default: return NULL;
  }
}

static void head(struct line *l, const struct ips_syslog *s, unsigned severity, uint64_t unix_ns,
                 const char *message_id) {
  time_t seconds = (time_t)(unix_ns / 1000000000u);
  struct tm t = {0};
  gmtime_r(&seconds, &t);
  say(l, "<%u>1 %04d-%02d-%02dT%02d:%02d:%02d.%03uZ ", (s->facility & 31) * 8 + severity, t.tm_year + 1900,
      t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, (unsigned)(unix_ns / 1000000u % 1000));
  say(l, "%.63s ipshare %" PRIu32 " %s - ", s->host[0] ? s->host : "-", s->pid, message_id);
}

static void end(struct line *l, const char *key, unsigned family, const uint8_t *address, unsigned port) {
  char text[INET6_ADDRSTRLEN] = "?";
  inet_ntop(family == 6 ? AF_INET6 : AF_INET, address, text, sizeof text);
  say(l, family == 6 ? " %s=[%s]:%u" : " %s=%s:%u", key, text, port);
}

static void quota(struct line *l, const struct ips_natlog_rec *r) {
  static const char *const NAMES[] = {"", "sessions", "mappings", "per-source"};
  if (r->quota >= sizeof NAMES / sizeof *NAMES) return;
  say(l, " quota=%s limit=%" PRIu32, NAMES[r->quota], r->limit);
}

static size_t finished(const struct line *l) { return l->used < l->room ? l->used : 0; }

size_t ips_syslog_line(const struct ips_syslog *s, const struct ips_natlog_rec *r, uint64_t now_ns,
                       uint64_t unix_ns, char *out, size_t room) {
  struct line l = {out, 0, room};
  const char *name = name_of(r);
  const struct ips_flow *f = &r->flow;
  bool session = r->event == IPS_NATLOG_SESSION_CREATE || r->event == IPS_NATLOG_SESSION_DELETE;
  bool limit = r->event == IPS_NATLOG_QUOTA || r->event == IPS_NATLOG_PORTS_EXHAUSTED;
  if (!name) return 0;
  head(&l, s, limit ? WARNING : INFORMATIONAL, unix_ns - (now_ns - r->at_ns), name);
  say(&l, "realm=%u proto=%u", f->realm, f->proto);
  end(&l, "inside", f->family, f->src, f->src_port);
  if (!limit) end(&l, "public", f->family, r->mapped, r->mapped_port);
  if (session) end(&l, "remote", f->family, f->dst, f->dst_port);
  if (session) say(&l, " begun=%s", r->from_outside ? "outside" : "inside");
  if (r->event == IPS_NATLOG_SESSION_DELETE)
    say(&l, " packets=%" PRIu64 "/%" PRIu64 " bytes=%" PRIu64 "/%" PRIu64, r->packets[0], r->packets[1],
        r->bytes[0], r->bytes[1]);
  if (r->event == IPS_NATLOG_QUOTA) quota(&l, r);
  return finished(&l);
}

size_t ips_syslog_lost(const struct ips_syslog *s, uint64_t lost, uint64_t unix_ns, char *out, size_t room) {
  struct line l = {out, 0, room};
  head(&l, s, WARNING, unix_ns, "RECORDS-LOST");
  say(&l, "lost=%" PRIu64, lost);
  return finished(&l);
}
