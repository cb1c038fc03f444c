/* ips_session_packet.c: a packet as the session table sees it, for hosts that follow flows without
 * translating their ports (kinds TRACK and DISPATCH). It has to come before the packet's addresses change.
 */
#include "ips_icmp.h"
#include "ips_parse.h"
#include "ips_rewrite.h"
#include "ips_session_table.h"

static bool echo_id(const struct ips_pkt *p, const struct ips_view *v, uint16_t *id) {
  unsigned type = p->data[v->l4];
  bool echo = v->family == 4 ? type == IPS_ICMP4_ECHO || type == IPS_ICMP4_ECHO_REPLY
                             : type == IPS_ICMP6_ECHO || type == IPS_ICMP6_ECHO_REPLY;
  *id = ips_be16(ips_ld16(p->data + v->l4 + 4));
  return echo;
}

bool ips_session_flow_of(const struct ips_pkt *p, const struct ips_view *v, uint16_t realm, bool back,
                         struct ips_flow *out, uint8_t *tcp_flags) {
  struct ips_flow f = {.family = v->family, .proto = v->proto, .realm = realm};
  if (v->fragment_at || ips_is_icmp_error(p, v)) return false;
  size_t size = v->family == 4 ? 4 : 16;
  memcpy(f.src, ips_field_at(p->data, v->family, back ? IPS_DST : IPS_SRC), size);
  memcpy(f.dst, ips_field_at(p->data, v->family, back ? IPS_SRC : IPS_DST), size);
  const uint8_t *l4 = p->data + v->l4;
  if (v->proto == (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6)) {
    if (!echo_id(p, v, &f.src_port)) return false;
  } else if (ips_port_class(v->proto) == 0 || ips_port_class(v->proto) == 1 || v->proto == IPS_PROTO_SCTP) {
    f.src_port = ips_be16(ips_ld16(l4 + (back ? 2 : 0)));
    f.dst_port = ips_be16(ips_ld16(l4 + (back ? 0 : 2)));
  }
  *tcp_flags = v->proto == IPS_PROTO_TCP ? l4[IPS_TCP_FLAGS] : 0;
  *out = f;
  return true;
}

int ips_session_see_packet(struct ips_sessions *t, uint32_t worker, struct ips_pkt *p, uint16_t realm,
                           uint32_t see, const uint8_t *mapped, uint64_t now_ns) {
  struct ips_view v;
  struct ips_flow f;
  uint8_t flags;
  int verdict = ips_parse(p, &v);
  if (verdict) return verdict;
  if (!ips_session_flow_of(p, &v, realm, see & IPS_SEE_OTHER_SIDE, &f, &flags)) return IPS_NO_SESSION;
  return ips_session_see(t, worker, &f, see, flags, p->total_len, mapped, now_ns);
}
