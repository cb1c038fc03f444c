/* flows_list.c: which sessions are wanted, their copies, and their end by order. */
#include "flows.h"
#include <string.h>

static bool has_bits_behind(const uint8_t address[16], unsigned bits) {
  for (unsigned i = 0; i < 16; i++) {
    unsigned kept = bits >= 8 * i + 8 ? 8 : bits > 8 * i ? bits - 8 * i : 0;
    if (address[i] & (0xff >> kept)) return true;
  }
  return false;
}

const char *flows_filter_fault(const struct ips_ctl_session_filter *f) {
  const uint8_t *address[] = {f->src, f->dst, f->mapped};
  const uint8_t length[] = {f->src_len, f->dst_len, f->mapped_len};
  if (f->family && f->family != 4 && f->family != 6) return "a filter's family is 4, 6, or 0 for both";
  for (unsigned i = 0; i < 3; i++) {
    if (length[i] > (f->family == 4 ? 32 : 128)) return "a filter's prefix is longer than its addresses";
    if (length[i] && !f->family) return "a filter with a prefix needs a family";
    if (has_bits_behind(address[i], length[i])) return "a filter's prefix has host bits";
  }
  return NULL;
}

static bool is_within(const uint8_t *address, const uint8_t *prefix, unsigned bits) {
  return !memcmp(address, prefix, bits / 8) &&
         !(bits % 8 && (address[bits / 8] ^ prefix[bits / 8]) & (0xff00 >> bits % 8));
}

bool flows_matches(const struct ips_ctl_session_filter *f, const struct ips_session_rec *r) {
  return (!f->family || f->family == r->flow.family) && is_within(r->flow.src, f->src, f->src_len) &&
         is_within(r->flow.dst, f->dst, f->dst_len) && is_within(r->mapped, f->mapped, f->mapped_len) &&
         (!f->src_port || f->src_port == r->flow.src_port) &&
         (!f->dst_port || f->dst_port == r->flow.dst_port) &&
         (!f->mapped_port || f->mapped_port == r->mapped_port) &&
         (!f->realm || f->realm == r->flow.realm + 1) &&
         (!f->proto || f->proto == r->flow.proto) && (!f->kind || f->kind == r->kind) &&
         (!f->state || f->state == r->state);
}

size_t flows_select(const struct ips_sessions *t, const struct ips_ctl_session_filter *filter, uint64_t *cursor,
                    struct ips_session_rec *out, uint64_t *scanned) {
  size_t kept = 0, n = ips_sessions_scan(t, cursor, flows_now_ns(), out, FLOWS_SLICE);
  *scanned += n;
  if (!n) *cursor = UINT64_MAX;
  for (size_t i = 0; i < n; i++)
    if (flows_matches(filter, &out[i])) out[kept++] = out[i];
  return kept;
}

bool flows_close_some(struct flows *f, const struct ips_ctl_session_filter *filter, uint64_t *cursor,
                      uint64_t *closed) {
  static struct ips_session_rec some[FLOWS_SLICE]; /* control thread only */
  uint32_t ring = flows_control_ring(f);
  uint64_t scanned = 0;
  size_t n = flows_select(f->sessions, filter, cursor, some, &scanned);
  for (size_t i = 0; i < n && (!filter->limit || *closed < filter->limit); i++)
    *closed += (uint64_t)ips_sessions_close(f->sessions, ring, &some[i].flow, flows_now_ns());
  return *cursor != UINT64_MAX && (!filter->limit || *closed < filter->limit);
}
