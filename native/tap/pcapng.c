/* pcapng.c: blocks of the pcapng format (draft-ietf-opsawg-pcapng), in host byte order.
 *
 * One section; an interface per device, link type RAW (bare IP), nanoseconds. Each packet carries
 * its direction (in: as it came, out: as it went) and a comment with verdict, counter cell
 * and generation, so that the reader of a file needs no second source.
 */
#include "sink.h"
#include "../ips_core.h"
#include "tap_ring.h"
#include <stdio.h>
#include <string.h>

enum { BLOCK_SECTION = 0x0a0d0d0a, BLOCK_INTERFACE = 1, BLOCK_PACKET = 6, LINKTYPE_RAW = 101 };
enum {
  OPT_END = 0, OPT_COMMENT = 1, SECTION_APPLICATION = 4, INTERFACE_NAME = 2, INTERFACE_TSRESOL = 9,
  PACKET_FLAGS = 2,
};

struct writer { uint8_t *at; size_t used, room; };

static void put(struct writer *w, const void *bytes, size_t n) {
  static const uint8_t zero[4];
  size_t padded = (n + 3) & ~(size_t)3;
  if (w->used + padded <= w->room) {
    if (n) memcpy(w->at + w->used, bytes, n); /* bytes may be NULL then */
    memcpy(w->at + w->used + n, zero, padded - n);
  }
  w->used += padded; /* beyond room: end_block says that it did not fit */
}
static void put32(struct writer *w, uint32_t value) { put(w, &value, 4); }

static void option(struct writer *w, uint16_t code, const void *value, size_t n) {
  uint16_t head[2] = {code, (uint16_t)n};
  put(w, head, 4);
  put(w, value, n);
}

static size_t begin_block(struct writer *w, uint32_t type) {
  size_t start = w->used;
  put32(w, type);
  put32(w, 0);
  return start;
}

static void end_block(struct writer *w, size_t start) {
  uint32_t total = (uint32_t)(w->used + 4 - start);
  put32(w, total);
  if (w->used <= w->room) memcpy(w->at + start + 4, &total, 4);
}

size_t pcapng_header(uint8_t *at, size_t room, const char *const device[2], const char *application) {
  struct writer w = {at, 0, room};
  size_t start = begin_block(&w, BLOCK_SECTION);
  const uint8_t nanoseconds = 9; /* timestamps count 10^-9 s */
  int64_t unknown_length = -1;
  put32(&w, 0x1a2b3c4d); /* byte order */
  put32(&w, 1);          /* version 1.0 */
  put(&w, &unknown_length, 8);
  option(&w, SECTION_APPLICATION, application, strlen(application));
  option(&w, OPT_END, NULL, 0);
  end_block(&w, start);
  for (int side = 0; side < 2; side++) {
    start = begin_block(&w, BLOCK_INTERFACE);
    put32(&w, LINKTYPE_RAW);
    put32(&w, 0); /* no limit on kept bytes */
    option(&w, INTERFACE_NAME, device[side], strlen(device[side]));
    option(&w, INTERFACE_TSRESOL, &nanoseconds, 1);
    option(&w, OPT_END, NULL, 0);
    end_block(&w, start);
  }
  return w.used <= room ? w.used : 0;
}

size_t pcapng_packet(uint8_t *at, size_t room, const struct tap_record *r, const uint8_t *data,
                     uint32_t kept) {
  struct writer w = {at, 0, room};
  char comment[160];
  int n = snprintf(comment, sizeof comment, "verdict=%s generation=%llu", ips_verdict_name(r->verdict),
                   (unsigned long long)r->generation);
  if (r->cell != IPS_NONE) n += snprintf(comment + n, sizeof comment - (size_t)n, " cell=%u", r->cell);
  if (r->kind == IPS_EMIT_ERROR)
    n += snprintf(comment + n, sizeof comment - (size_t)n, " made-here=icmp-error");
  if (r->gso_size) n += snprintf(comment + n, sizeof comment - (size_t)n, " gso-size=%u", r->gso_size);
  uint32_t flags = r->is_after ? 2 : 1; /* outbound, inbound */
  size_t start = begin_block(&w, BLOCK_PACKET);
  put32(&w, r->side);
  put32(&w, (uint32_t)(r->realtime_ns >> 32));
  put32(&w, (uint32_t)r->realtime_ns);
  put32(&w, kept);
  put32(&w, r->length);
  put(&w, data, kept);
  option(&w, OPT_COMMENT, comment, (size_t)n);
  option(&w, PACKET_FLAGS, &flags, 4);
  option(&w, OPT_END, NULL, 0);
  end_block(&w, start);
  return w.used <= room ? w.used : 0;
}
