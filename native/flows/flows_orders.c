/* flows_orders.c: orders about tracked connections (contract in flows_orders.h): what they take, what is
 * wrong with them, in words. What they do is in the other files. */
#define _GNU_SOURCE
#include "flows_orders.h"
#include "../ips_napt_api.h"
#include "flows_dispatch.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(struct flows_order *o, int status, const char *text) {
  o->sentence = text;
  return status;
}

static int no_flows(struct flows_order *o) {
  return refuse(o, IPS_CTL_REFUSED, "no connections are tracked on this node");
}

static int failed(struct flows_order *o, int error, const char *text) {
  o->error = error;
  return refuse(o, IPS_CTL_SYSTEM, text);
}

static bool write_all(int fd, const void *bytes, size_t n) {
  for (const uint8_t *at = bytes; n;) {
    ssize_t some = write(fd, at, n);
    if (some < 0 && errno != EINTR) return false;
    if (some > 0) at += some, n -= (size_t)some;
  }
  return true;
}

/* ---- settings ---- */

static int set(struct flows *f, struct natlog *log, struct flows_order *o) {
  struct ips_ctl_flows *wanted = malloc(sizeof *wanted);
  if (!wanted) return failed(o, ENOMEM, "out of memory");
  memcpy(wanted, o->payload, sizeof *wanted);
  int status = flows_set(f, wanted, &o->sentence);
  free(wanted);
  if (f->sessions) natlog_attach(log, f->sessions);
  return status;
}

static int set_mirror(struct flows *f, struct flows_order *o) {
  struct ips_ctl_mirror wanted;
  memcpy(&wanted, o->payload, sizeof wanted);
  int status = flows_mirror_set(f, &wanted, &o->sentence);
  explicit_bzero(&wanted, sizeof wanted);
  return status;
}

static int set_clusters(struct flows *f, struct flows_order *o) {
  struct ips_ctl_dispatch *wanted = malloc(sizeof *wanted);
  if (!wanted) return failed(o, ENOMEM, "out of memory");
  memcpy(wanted, o->payload, sizeof *wanted);
  int status = flows_dispatch_set(f, wanted, &o->sentence);
  free(wanted);
  return status;
}

static int feed(struct flows *f, struct flows_order *o) {
  struct ips_ctl_feed c;
  memcpy(&c, o->payload, sizeof c);
  if (o->fed_bytes != c.count * sizeof(struct ips_ctl_fed))
    return refuse(o, IPS_CTL_BAD_LENGTH, "what came beside it does not hold so many records");
  return flows_feed(f, &c, o->fed, &o->sentence);
}

static int set_log(struct natlog *log, struct flows_order *o) {
  struct ips_ctl_natlog wanted;
  memcpy(&wanted, o->payload, sizeof wanted);
  return natlog_set(log, &wanted, &o->sentence);
}

/* ---- questions ---- */

static int addresses(struct flows *f, struct flows_order *o) {
  if (!f->napt) return no_flows(o);
  size_t n = ips_napt_addresses(f->napt, NULL, 0), bytes = n * sizeof(struct ips_napt_address);
  struct ips_napt_address *all = malloc(bytes + 1);
  if (!all) return failed(o, ENOMEM, "out of memory");
  ips_napt_addresses(f->napt, all, n);
  bool written = write_all(o->fd, all, bytes);
  int error = errno;
  free(all);
  return written ? IPS_CTL_OK : failed(o, error, "the addresses cannot be written");
}

static void begin_list(struct flows_order *o) {
  o->reply.found.now_ns = flows_now_ns();
  o->reply_bytes = sizeof o->reply.found;
  o->is_under_way = true;
}

static int begin(struct flows *f, struct flows_order *o) {
  memcpy(&o->filter, o->payload, sizeof o->filter);
  const char *fault = flows_filter_fault(&o->filter);
  if (fault) return refuse(o, IPS_CTL_BAD_ARGUMENT, fault);
  if (!f->sessions) return no_flows(o);
  if (o->op == IPS_CTL_SESSIONS_CLOSE && !flows_is_active(f))
    return refuse(o, IPS_CTL_REFUSED, "this node is a standby: close the sessions at the active node");
  if (o->op == IPS_CTL_SESSIONS_DUMP) {
    o->table = f->sessions;
    begin_list(o);
  } else {
    o->reply_bytes = sizeof o->reply.closed;
    o->is_under_way = true;
  }
  return IPS_CTL_OK;
}

static int dump_some(struct flows_order *o) {
  size_t n = flows_select(o->table, &o->filter, &o->cursor, o->some, &o->reply.found.scanned), wanted = n;
  if (o->filter.limit && o->kept + n > o->filter.limit) wanted = (size_t)(o->filter.limit - o->kept);
  if (!write_all(o->fd, o->some, wanted * sizeof *o->some)) return failed(o, errno, "the dump failed");
  o->kept += wanted;
  o->reply.found.matched += n;
  return o->cursor == UINT64_MAX ? IPS_CTL_OK : FLOWS_MORE;
}

static int close_some(struct flows *f, struct flows_order *o) {
  if (!flows_is_active(f))
    return refuse(o, IPS_CTL_REFUSED, "this node became a standby meanwhile: some are closed");
  return flows_close_some(f, &o->filter, &o->cursor, &o->reply.closed.closed) ? FLOWS_MORE : IPS_CTL_OK;
}

static int list(struct flows *f, struct flows_order *o) {
  int status = o->is_under_way ? IPS_CTL_OK : begin(f, o);
  if (status != IPS_CTL_OK) return status;
  return o->op == IPS_CTL_SESSIONS_DUMP ? dump_some(o) : close_some(f, o);
}

static int remap(struct flows *f, struct flows_order *o) {
  if (o->is_under_way) return dump_some(o);
  int status = flows_order_remap(f, o);
  if (status != FLOWS_MORE) return status;
  begin_list(o);
  return dump_some(o);
}

/* ---- all of them ---- */

long flows_order_bytes(int op) {
  switch (op) {
    case IPS_CTL_FLOWS_SET: return sizeof(struct ips_ctl_flows);
    case IPS_CTL_MIRROR_SET: return sizeof(struct ips_ctl_mirror);
    case IPS_CTL_SESSIONS_FEED: return sizeof(struct ips_ctl_feed);
    case IPS_CTL_NATLOG_SET: return sizeof(struct ips_ctl_natlog);
    case IPS_CTL_SESSIONS_DUMP:
    case IPS_CTL_SESSIONS_CLOSE: return sizeof(struct ips_ctl_session_filter);
    case IPS_CTL_REMAP_SET: return sizeof(struct ips_ctl_remap);
    case IPS_CTL_REMAP_CLEAR:
    case IPS_CTL_REMAP_STATE: return sizeof(struct ips_ctl_remap_id);
    case IPS_CTL_REMAP_FLOWS: return sizeof(struct ips_ctl_remap_wanted);
    case IPS_CTL_DISPATCH_SET: return sizeof(struct ips_ctl_dispatch);
    case IPS_CTL_DISPATCH_STATE:
    case IPS_CTL_REMAP_LIST:
    case IPS_CTL_FLOWS_STATE:
    case IPS_CTL_MIRROR_CLEAR:
    case IPS_CTL_NAT_ADDRESSES:
    case IPS_CTL_NATLOG_STATE: return 0;
    default: return -1;
  }
}

int flows_order(struct flows *f, struct natlog *log, struct flows_order *o) {
  switch (o->op) {
    case IPS_CTL_FLOWS_SET: return set(f, log, o);
    case IPS_CTL_MIRROR_SET: return set_mirror(f, o);
    case IPS_CTL_SESSIONS_FEED: return feed(f, o);
    case IPS_CTL_NATLOG_SET: return set_log(log, o);
    case IPS_CTL_NAT_ADDRESSES: return addresses(f, o);
    case IPS_CTL_SESSIONS_DUMP:
    case IPS_CTL_SESSIONS_CLOSE: return list(f, o);
    case IPS_CTL_REMAP_SET:
    case IPS_CTL_REMAP_CLEAR:
    case IPS_CTL_REMAP_STATE:
    case IPS_CTL_REMAP_LIST:
    case IPS_CTL_REMAP_FLOWS: return remap(f, o);
    case IPS_CTL_DISPATCH_SET: return set_clusters(f, o);
    case IPS_CTL_DISPATCH_STATE:
      o->reply_bytes = flows_dispatch_state(f, o->servers) * sizeof *o->servers;
      return IPS_CTL_OK;
    case IPS_CTL_MIRROR_CLEAR: flows_mirror_clear(f); return IPS_CTL_OK;
    case IPS_CTL_FLOWS_STATE:
      flows_state(f, &o->reply.state);
      o->reply_bytes = sizeof o->reply.state;
      return IPS_CTL_OK;
    case IPS_CTL_NATLOG_STATE:
      natlog_state(log, &o->reply.log);
      o->reply_bytes = sizeof o->reply.log;
      return IPS_CTL_OK;
    default: return refuse(o, IPS_CTL_UNKNOWN_OP, "no operation on tracked connections");
  }
}

const void *flows_order_reply(const struct flows_order *o) {
  if (o->op == IPS_CTL_DISPATCH_STATE) return o->servers;
  return o->op == IPS_CTL_REMAP_LIST ? (const void *)o->remaps : &o->reply;
}

void flows_order_explain(const struct flows_order *o, char *out, size_t room) {
  const char *sentence = o->sentence ? o->sentence : "";
  if (o->about) snprintf(out, room, "%s %llu", sentence, (unsigned long long)o->about);
  else snprintf(out, room, "%s", sentence);
}
