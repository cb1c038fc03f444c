/* ips_natlog_ipfix.c: log records as IPFIX messages (RFC 7011), with the information elements of RFC 8158.
 *
 * A template is a row of (element, length); what an element's value is, is said once (value_of). Records in
 * a row that have one template share a data set. RFC 8158 has no event of its own for NAT66: those of NAT44
 * are used, with IPv6 elements, and natType says which it is. natInstanceID is the realm's number. Losses
 * are told as the Exporting Process Reliability Statistics of RFC 7011 4.3: their count and when it was read.
 */
#include "ips_core.h"
#include "ips_natlog_api.h"

enum element {
  PROTOCOL = 4, SRC_PORT = 7, SRC4 = 8, DST_PORT = 11, DST4 = 12, SRC6 = 27, DST6 = 28, PROCESS = 144,
  NOT_SENT = 166, NAT_SRC4 = 225, NAT_DST4 = 226, NAT_SRC_PORT = 227, NAT_DST_PORT = 228, ORIGIN = 229,
  NAT_EVENT = 230, OCTETS_OUT = 231, OCTETS_IN = 232, NAT_SRC6 = 281, NAT_DST6 = 282, NAT_TYPE = 297,
  PACKETS_OUT = 298, PACKETS_IN = 299, TIME_MS = 323, INSTANCE = 463, QUOTA = 466, MAX_SESSIONS = 471,
  MAX_MAPPINGS = 472, MAX_PER_USER = 473,
};
struct field { uint16_t element, bytes; };
struct template { uint16_t id, scopes; struct field fields[20]; };

#define HEAD {TIME_MS, 8}, {NAT_EVENT, 1}, {NAT_TYPE, 1}, {INSTANCE, 4}
#define SESSION(f, size) \
  HEAD, {PROTOCOL, 1}, {ORIGIN, 1}, {SRC##f, size}, {NAT_SRC##f, size}, {SRC_PORT, 2}, {NAT_SRC_PORT, 2}, \
    {DST##f, size}, {NAT_DST##f, size}, {DST_PORT, 2}, {NAT_DST_PORT, 2}
#define COUNTS {PACKETS_OUT, 8}, {OCTETS_OUT, 8}, {PACKETS_IN, 8}, {OCTETS_IN, 8}
#define MAPPING(f, size) \
  HEAD, {PROTOCOL, 1}, {SRC##f, size}, {NAT_SRC##f, size}, {SRC_PORT, 2}, {NAT_SRC_PORT, 2}
#define REFUSED(f, size) HEAD, {PROTOCOL, 1}, {SRC##f, size}

/* The order is that of template_of. */
static const struct template TEMPLATES[] = {
  {256, 0, {SESSION(4, 4)}},
  {257, 0, {SESSION(6, 16)}},
  {258, 0, {SESSION(4, 4), COUNTS}},
  {259, 0, {SESSION(6, 16), COUNTS}},
  {260, 0, {MAPPING(4, 4)}},
  {261, 0, {MAPPING(6, 16)}},
  {262, 0, {REFUSED(4, 4)}},
  {263, 0, {REFUSED(6, 16)}},
  {264, 0, {HEAD, {QUOTA, 4}, {MAX_SESSIONS, 4}}},
  {265, 0, {HEAD, {QUOTA, 4}, {MAX_MAPPINGS, 4}}},
  {266, 0, {HEAD, {QUOTA, 4}, {MAX_PER_USER, 4}, {SRC4, 4}}},
  {267, 0, {HEAD, {QUOTA, 4}, {MAX_PER_USER, 4}, {SRC6, 16}}},
  {268, 1, {{PROCESS, 4}, {NOT_SENT, 8}, {TIME_MS, 8}}},
};
enum { N_TEMPLATES = sizeof TEMPLATES / sizeof *TEMPLATES, LOSSES = N_TEMPLATES - 1, FIELDS = 20 };
enum { VERSION = 10, HEADER = 16, SET_HEADER = 4, TEMPLATE_SET = 2, OPTIONS_SET = 3, LEAST_ROOM = 1232 };

struct writer { uint8_t *at; size_t used, room; };

static void put(struct writer *w, uint64_t value, unsigned bytes) {
  for (unsigned i = bytes; i-- > 0;) w->at[w->used++] = (uint8_t)(value >> 8 * i);
}
static void put_at(struct writer *w, size_t at, uint64_t value, unsigned bytes) {
  for (unsigned i = 0; i < bytes; i++) w->at[at + i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static unsigned n_fields(const struct template *t) {
  unsigned n = 0;
  while (n < FIELDS && t->fields[n].bytes) n++;
  return n;
}
static size_t record_bytes(const struct template *t) {
  size_t bytes = 0;
  for (unsigned i = 0; i < n_fields(t); i++) bytes += t->fields[i].bytes;
  return bytes;
}

/* NONE for what is no event. */
static const struct template *template_of(const struct ips_natlog_rec *r) {
  unsigned six = r->flow.family == 6;
  switch (r->event) {
  case IPS_NATLOG_SESSION_CREATE: return &TEMPLATES[0 + six];
  case IPS_NATLOG_SESSION_DELETE: return &TEMPLATES[2 + six];
  case IPS_NATLOG_MAPPING_CREATE: case IPS_NATLOG_MAPPING_DELETE: return &TEMPLATES[4 + six];
  case IPS_NATLOG_PORTS_EXHAUSTED: return &TEMPLATES[6 + six];
  case IPS_NATLOG_QUOTA:
    if (r->quota == IPS_NATLOG_QUOTA_SESSIONS) return &TEMPLATES[8];
    if (r->quota == IPS_NATLOG_QUOTA_MAPPINGS) return &TEMPLATES[9];
    return &TEMPLATES[10 + six];
  default: return NULL;
  }
}

static const uint8_t *address_of(const struct ips_natlog_rec *r, unsigned element) {
  switch (element) {
  case SRC4: case SRC6: return r->flow.src;
  case NAT_SRC4: case NAT_SRC6: return r->mapped;
  case DST4: case DST6: case NAT_DST4: case NAT_DST6: return r->flow.dst; /* stays as it is */
  default: return NULL;
  }
}

static uint64_t value_of(const struct ips_natlog_rec *r, unsigned element, uint64_t unix_ms) {
  switch (element) {
  case TIME_MS: return unix_ms;
  case NAT_EVENT: return r->event;
  case NAT_TYPE: return r->flow.family == 6 ? 5 : 1; /* NAT66, NAT44 */
  case INSTANCE: return r->flow.realm;
  case PROTOCOL: return r->flow.proto;
  case ORIGIN: return r->from_outside ? 2 : 1; /* public, private */
  case SRC_PORT: return r->flow.src_port;
  case NAT_SRC_PORT: return r->mapped_port;
  case DST_PORT: case NAT_DST_PORT: return r->flow.dst_port;
  case PACKETS_OUT: return r->packets[0];
  case PACKETS_IN: return r->packets[1];
  case OCTETS_OUT: return r->bytes[0];
  case OCTETS_IN: return r->bytes[1];
  case QUOTA: return r->quota;
  default: return r->limit; /* the three maxima */
  }
}

static void put_record(struct writer *w, const struct template *t, const struct ips_natlog_rec *r,
                       uint64_t unix_ms) {
  for (unsigned i = 0; i < n_fields(t); i++) {
    const uint8_t *address = address_of(r, t->fields[i].element);
    if (address) memcpy(w->at + w->used, address, t->fields[i].bytes);
    if (address) w->used += t->fields[i].bytes;
    else put(w, value_of(r, t->fields[i].element, unix_ms), t->fields[i].bytes);
  }
}

static void put_template(struct writer *w, const struct template *t) {
  put(w, t->id, 2);
  put(w, n_fields(t), 2);
  if (t->scopes) put(w, t->scopes, 2);
  for (unsigned i = 0; i < n_fields(t); i++) {
    put(w, t->fields[i].element, 2);
    put(w, t->fields[i].bytes, 2);
  }
}

static size_t open_set(struct writer *w, unsigned id) {
  size_t at = w->used;
  put(w, id, 2);
  put(w, 0, 2);
  return at;
}
static void close_set(struct writer *w, size_t at) { put_at(w, at + 2, w->used - at, 2); }

static void put_templates(struct writer *w) {
  size_t set = open_set(w, TEMPLATE_SET);
  for (unsigned i = 0; i < LOSSES; i++) put_template(w, &TEMPLATES[i]);
  close_set(w, set);
  set = open_set(w, OPTIONS_SET);
  put_template(w, &TEMPLATES[LOSSES]);
  close_set(w, set);
}

static void put_losses(struct writer *w, const struct ips_ipfix *x, uint64_t lost, uint64_t unix_ms) {
  size_t set = open_set(w, TEMPLATES[LOSSES].id);
  put(w, x->domain, 4);
  put(w, lost, 8);
  put(w, unix_ms, 8);
  close_set(w, set);
}

/* Returns how many data records were written; *used: how many of n are done with. */
static uint32_t put_records(struct writer *w, const struct ips_natlog_rec *records, size_t n, size_t *used,
                            uint64_t now_ns, uint64_t unix_ns) {
  const struct template *open = NULL;
  uint32_t written = 0;
  size_t set = 0;
  for (*used = 0; *used < n; ++*used) {
    const struct ips_natlog_rec *r = &records[*used];
    const struct template *t = template_of(r);
    if (!t) continue;
    if (w->used + record_bytes(t) + (t == open ? 0 : SET_HEADER) > w->room) break;
    if (t != open) {
      if (open) close_set(w, set);
      set = open_set(w, t->id);
      open = t;
    }
    put_record(w, t, r, (unix_ns - (now_ns - r->at_ns)) / 1000000u);
    written++;
  }
  if (open) close_set(w, set);
  return written;
}

size_t ips_ipfix_message(struct ips_ipfix *x, const struct ips_natlog_rec *records, size_t n, size_t *used,
                         uint64_t lost, uint64_t now_ns, uint64_t unix_ns, uint8_t *out, size_t room) {
  struct writer w = {out, 0, room < 65535 ? room : 65535};
  bool templates = now_ns >= x->templates_due_ns, losses = lost != x->lost_told;
  *used = 0;
  if (room < LEAST_ROOM || (!n && !templates && !losses)) return 0;
  put(&w, VERSION, 2);
  put(&w, 0, 2);
  put(&w, unix_ns / 1000000000u, 4);
  put(&w, x->sequence, 4);
  put(&w, x->domain, 4);
  if (templates) put_templates(&w);
  if (losses) put_losses(&w, x, lost, unix_ns / 1000000u);
  uint32_t written = put_records(&w, records, n, used, now_ns, unix_ns);
  if (w.used == HEADER) return 0; /* none of the records is an event */
  if (templates) x->templates_due_ns = now_ns + x->template_ns;
  if (losses) x->lost_told = lost;
  x->sequence += written + losses;
  put_at(&w, 2, w.used, 2);
  return w.used;
}
