/* ips_track.c: packets of tracked bindings and their sessions (SYSTEMS.md S4.3).
 *
 * Translation is stateless and needs no session; who follows the flow only watches. So whatever the session
 * table says, full or not, the packet goes as it would have gone. The flow is the one that the client sees:
 * its address and the Global IP, at every node alike.
 */
#include "ips_session_table.h"
#include "ips_worker.h"

void ips_track_note(const struct ips_pkt *p, const struct ips_view *v, uint8_t binding_flags, bool back,
                    struct ips_noted *out) {
  out->bytes = p->total_len;
  out->see = IPS_SEE_MIDSTREAM | (back ? IPS_SEE_OTHER_SIDE : 0) |
             (binding_flags & IPS_BINDING_TRACK_BOTH ? 0 : IPS_SEE_ONE_SIDED);
  out->is_one = ips_session_flow_of(p, v, 0, back, &out->flow, &out->tcp_flags);
}

void ips_track_tell(struct ips_worker *w, const struct ips_noted *n, int verdict) {
  if (w->asks || !n->is_one || (ips_dispositions[verdict] != IPS_SEND && verdict != IPS_SPLIT)) return;
  ips_session_see(w->sessions, w->index, &n->flow, n->see, n->tcp_flags, n->bytes, NULL, w->now_ns);
}
