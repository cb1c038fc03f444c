/* flows_orders.h: what a node can be told and asked about its tracked connections, its remaps, its clusters
 * and its NAT log: the operations of ips_control_flows.h, ips_control_remap.h, ips_control_dispatch.h and
 * ips_control_natlog.h, the same in every host. Servers' hardware addresses are the host's own.
 *
 *   host: request -> struct flows_order -> flows_order() until there is no MORE -> its reply, or the sentence
 *
 * How a request comes and where bulk data lies is the host's affair (native/engine/ops_flows.c: the control
 * socket; plugins/ipshare/api_flows.c: VPP's binary API). Each call is a slice: hosts have turns of others
 * between them.
 */
#ifndef FLOWS_ORDERS_H
#define FLOWS_ORDERS_H
#include "flows.h"
#include "../ips_control_dispatch.h"
#include "../ips_control_remap.h"
#include "../natlog/natlog.h"

enum { FLOWS_MORE = -1 }; /* no status: call again */

struct flows_order {
  int op;                        /* enum ips_ctl_op */
  const void *payload;           /* flows_order_bytes() of them */
  const struct ips_ctl_fed *fed; /* SESSIONS_FEED: what came beside it */
  size_t fed_bytes;
  int fd;                        /* SESSIONS_DUMP, NAT_ADDRESSES, REMAP_FLOWS: the records are written here */
  struct ips_session_rec *some;  /* SESSIONS_DUMP, REMAP_FLOWS: FLOWS_SLICE of them */
  struct ips_ctl_remap_state *remaps; /* REMAP_LIST: the reply, room for IPS_REMAPS */
  struct ips_ctl_server_state *servers; /* DISPATCH_STATE: the same, room for IPS_SERVERS */
  /* of a status other than OK */
  const char *sentence;
  int error;                     /* errno, with IPS_CTL_SYSTEM */
  uint64_t about;                /* the id that the sentence ends with; 0: none */
  /* of OK */
  size_t reply_bytes;
  union {
    struct ips_ctl_flows_state state;
    struct ips_ctl_sessions found;
    struct ips_ctl_closed closed;
    struct ips_ctl_natlog_state log;
    struct ips_ctl_remap_state remap;
  } reply;
  /* flows_order's own, from one call to the next */
  bool is_under_way;
  const struct ips_sessions *table; /* that is listed; of SESSIONS_*: the node's own */
  uint64_t cursor, kept;
  struct ips_ctl_session_filter filter;
};

/* Length of an operation's payload; -1: it is not about tracked connections. */
long flows_order_bytes(int op);
/* A status of ips_control.h, or FLOWS_MORE. Control's thread; SESSIONS_DUMP: any, beside it; and REMAP_FLOWS, once it
 * is under way, as long as its remap (o->table) is not cleared. */
int flows_order(struct flows *f, struct natlog *log, struct flows_order *o);
/* Of OK: reply_bytes of it. */
const void *flows_order_reply(const struct flows_order *o);
/* The sentence, with what it ends with. */
void flows_order_explain(const struct flows_order *o, char *out, size_t room);
/* flows_orders_remap.c: IPS_CTL_REMAP_*; MORE: a list begins. */
int flows_order_remap(struct flows *f, struct flows_order *o);
#endif
