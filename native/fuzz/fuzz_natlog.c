/* fuzz_natlog.c: any records, in any number and room, as IPFIX messages and as syslog lines.
 *
 * The input: one byte of room (1,232 + 8 x it), one of losses, one of time; then records as they lie in memory.
 * Claims: a message keeps to its room, its length and its sets' lengths add up, every data set's template was
 * sent before, the sequence number rises by the data records that are in it; all records are got rid of; a
 * line fits, has no control character, and begins as RFC 5424 wants.
 */
#include "../tests/check.h"
#include "ips_core.h"
#include "ips_natlog_api.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST = 40, KNOWN = 512 };
static uint16_t sizes[KNOWN]; /* bytes of a template's records */

static unsigned be16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }

static void templates(const uint8_t *p, size_t n, bool options) {
  for (size_t at = 0; at < n;) {
    unsigned id = be16(p + at), count = be16(p + at + 2), bytes = 0;
    at += options ? 6 : 4;
    for (unsigned i = 0; i < count; i++, at += 4) bytes += be16(p + at + 2);
    CHECK(at <= n && id < KNOWN && bytes);
    sizes[id] = (uint16_t)bytes;
  }
}

/* Data records of the message. */
static uint32_t judge(const uint8_t *p, size_t n) {
  uint32_t records = 0;
  CHECK(n >= 20 && be16(p) == 10 && be16(p + 2) == n);
  for (size_t at = 16; at < n;) {
    unsigned id = be16(p + at), bytes = be16(p + at + 2);
    CHECK(bytes > 4 && at + bytes <= n);
    if (id == 2 || id == 3) {
      templates(p + at + 4, bytes - 4, id == 3);
    } else {
      CHECK(id < KNOWN && sizes[id] && (bytes - 4) % sizes[id] == 0);
      records += (bytes - 4) / sizes[id];
    }
    at += bytes;
  }
  return records;
}

static void line(const struct ips_natlog_rec *r, uint64_t now, size_t room) {
  struct ips_syslog s = {.facility = r->reserved[0], .pid = r->limit, .host = "node"};
  char out[IPS_SYSLOG_LINE];
  size_t n = ips_syslog_line(&s, r, now, now + 5, out, room < sizeof out ? room : sizeof out);
  CHECK(n < sizeof out && (!n || (out[0] == '<' && memchr(out, '>', 5))));
  for (size_t i = 0; i < n; i++) CHECK(out[i] >= ' ' && out[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
  static uint8_t out[1232 + 8 * 255];
  struct ips_natlog_rec records[MOST];
  struct ips_ipfix x = {.domain = 1, .sequence = 0xfffffff0u, .template_ns = 1000};
  if (n < 3) return 0;
  size_t room = 1232 + 8u * data[0], count = (n - 3) / sizeof *records, used;
  uint64_t now = data[2] * 100u;
  count = count < MOST ? count : MOST;
  memcpy(records, data + 3, count * sizeof *records);
  memset(sizes, 0, sizeof sizes);
  for (size_t at = 0;; at += used) {
    uint32_t before = x.sequence;
    size_t bytes = ips_ipfix_message(&x, records + at, count - at, &used, data[1], now, 1u << 30, out, room);
    CHECK(at + used <= count && bytes <= room);
    if (!bytes) {
      CHECK(at + used == count);
      break;
    }
    CHECK(x.sequence - before == judge(out, bytes));
  }
  for (size_t i = 0; i < count; i++) line(&records[i], now, 64u * data[0]);
  return 0;
}
