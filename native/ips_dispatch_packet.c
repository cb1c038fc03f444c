/* ips_dispatch_packet.c: a packet to a cluster's address: whose connection it is, which server gets it.
 *
 *   flow (ports of fragments from the fragment table, of ICMP errors from their quote) -> session -> its server;
 *   no session: chosen by hash -> session
 *
 * A session's server keeps it, drained or failed: it may be alive after all, and another one would only reset what it
 * does not know. What begins anew (a SYN; any datagram that could) leaves a failed server, and a SYN on a
 * connection that is over one that is drained. Where the session table has no room the hash alone decides, so the packet
 * goes all the same. One side is seen: replies do not come this way. No byte of the packet changes.
 */
#include "ips_dispatch.h"
#include "ips_frag.h"
#include "ips_parse.h"
#include "ips_remap.h"
#include "ips_rewrite.h"

enum { SEE = IPS_SEE_MIDSTREAM | IPS_SEE_ONE_SIDED };

void ips_worker_set_clusters(struct ips_worker *w, const struct ips_clusters *s) { w->clusters = s; }

static void count(const struct ips_worker *w, uint32_t number, uint32_t bytes, bool opened, bool untracked) {
  const struct ips_clusters *s = w->clusters;
  if (!s->counts || w->asks) return;
  struct ips_server_count *c = &s->counts[(size_t)w->index * s->addresses + number];
  ips_put(c->packets, c->packets + 1);
  ips_put(c->bytes, c->bytes + bytes);
  if (opened) ips_put(c->opened, c->opened + 1);
  if (untracked) ips_put(c->untracked, c->untracked + 1);
}

/* Whether the packet, of a session that is this server's, may and should begin anew elsewhere. */
static bool leaves(const struct ips_server *server, const struct ips_remap_packet *packet, unsigned state) {
  if (packet->is_error || !packet->opens) return false;
  if (server->r.state == IPS_SERVER_FAILED) return true;
  bool is_over = packet->flow.proto == IPS_PROTO_TCP && state >= IPS_STATE_CLIENT_CLOSED;
  return is_over && !ips_server_takes(server);
}

static int nobody(struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v) {
  ips_worker_error(w, p, v, IPS_ERR_HOST_UNREACHABLE, 0);
  return IPS_NO_SERVER;
}

/* The flow is the server's from now on, or still. True: it could not be remembered. An error opens, keeps and ends
 * nothing. */
static bool follow(struct ips_worker *w, const struct ips_pkt *p, const struct ips_remap_packet *packet,
                   const struct ips_place *place, const struct ips_found *found, const struct ips_server *server) {
  struct ips_sessions *t = w->clusters->sessions;
  if (w->asks || packet->is_error) return false;
  int verdict = ips_session_see_at(t, w->index, place, found, SEE, packet->tcp_flags, p->total_len, server->r.address,
                                   w->now_ns);
  return verdict != IPS_OK && verdict != IPS_NO_SESSION;
}

/* Where a flow is decided about: once for a packet, again for fragments of it that came before. */
static int go(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v, const struct ips_cluster *c,
              const struct ips_remap_packet *packet) {
  const struct ips_clusters *s = w->clusters;
  struct ips_place place = ips_place_of(s->sessions, &packet->flow);
  struct ips_found found;
  const struct ips_server *server = NULL;
  bool is_known = ips_session_find(s->sessions, &place, &found) && ips_word_kind(found.word) == IPS_SESSION_DISPATCH;
  if (is_known) server = ips_cluster_server(s, c, found.number);
  if (server && leaves(server, packet, ips_word_state(found.word))) server = NULL;
  bool is_new = !server;
  if (is_new && !(server = ips_cluster_choose(s, c, &packet->flow))) return nobody(w, p, v);
  if (is_known && found.number != server->number) {
    if (!w->asks && !packet->is_error) ips_sessions_close(s->sessions, w->index, &packet->flow, w->now_ns);
    is_known = false;
  }
  bool untracked = follow(w, p, packet, &place, is_known ? &found : NULL, server);
  count(w, server->number, p->total_len, is_new && packet->opens && !packet->is_error, untracked);
  p->server = server->number + 1;
  return IPS_DISPATCHED;
}

/* ---- fragments that came before their first one ---- */

struct early { struct ips_worker *w; const struct ips_cluster *cluster; const struct ips_remap_packet *first; };

static void send_early(void *arg, struct ips_pkt *p) {
  struct early *e = arg;
  struct ips_remap_packet later = *e->first;
  struct ips_view v;
  later.tcp_flags = 0;
  later.opens = later.flow.proto != IPS_PROTO_TCP;
  if (ips_parse(p, &v) != IPS_OK) return;
  if (go(e->w, p, &v, e->cluster, &later) == IPS_DISPATCHED) e->w->emit(e->w->arg, p, IPS_EMIT_PACKET);
}

/* The first fragment tells the table its datagram's ports, and lets those go that waited for it. */
static int learn(struct ips_worker *w, const struct ips_pkt *p, const struct ips_view *v, const struct ips_cluster *c,
                 const struct ips_remap_packet *packet) {
  bool is_icmp = v->proto == (v->family == 4 ? IPS_PROTO_ICMP : IPS_PROTO_ICMP6);
  struct ips_frag_flow ports = {.src_port = packet->flow.src_port,
                                .dst_port = is_icmp ? packet->flow.src_port : packet->flow.dst_port};
  struct early early = {w, c, packet};
  return ips_frag_learn(w->clusters->frags, p, v, w->now_ns, &ports, send_early, &early);
}

int ips_dispatch(struct ips_worker *w, struct ips_pkt *p, const struct ips_view *v) {
  const struct ips_clusters *s = w->clusters;
  const struct ips_cluster *c = ips_cluster_find(s, v->family, ips_field_at(p->data, v->family, IPS_DST));
  struct ips_remap_packet packet;
  if (!c) return IPS_NO_BINDING;
  if (ips_get(s->sessions->standby)) return IPS_PAIR_NOT_ACTIVE;
  if (ips_bad_scope(ips_field_at(p->data, v->family, IPS_SRC), v->family)) return IPS_SOURCE_SCOPE;
  int verdict = ips_remap_flow_of(w, s->frags, p, v, false, &packet);
  if (verdict != IPS_OK) return verdict;
  if (!packet.has_flow) return IPS_NO_SESSION;
  if (ips_unlikely(v->is_fragment) && !v->fragment_at && !w->asks) {
    verdict = learn(w, p, v, c, &packet);
    if (verdict == IPS_BAD_FRAGMENT) return verdict;
  }
  return go(w, p, v, c, &packet);
}
