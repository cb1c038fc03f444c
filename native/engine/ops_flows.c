/* ops_flows.c: orders about tracked connections, remaps and NAT logs on the control socket. What they mean is in
 * native/flows/flows_orders.c.
 *
 * Bulk data comes and goes as memfds. Sessions are closed a slice at a time, other clients' requests between
 * them; they are listed by a thread of its own. One at a time of either.
 */
#define _GNU_SOURCE
#include "control.h"
#include "../flows/flows_orders.h"
#include "../flows/flows_remap.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static int tell(struct control *c, struct flows_order *o) {
  return flows_order(c->engine->flows, c->engine->natlog, o);
}

static void explain(struct ips_ctl_error *error, const struct flows_order *o) {
  *error = (struct ips_ctl_error){.system_errno = o->error};
  flows_order_explain(o, error->text, sizeof error->text);
  size_t used = strlen(error->text);
  if (o->error) snprintf(error->text + used, sizeof error->text - used, ": %s", strerror(o->error));
}

static int answer(struct call *c, const struct flows_order *o, int status) {
  if (status != IPS_CTL_OK) explain(&c->error, o);
  else memcpy(c->out, flows_order_reply(o), c->out_bytes = (uint32_t)o->reply_bytes);
  return status;
}

static struct flows_order order_of(const struct call *c) {
  return (struct flows_order){.op = c->head.op, .payload = c->payload, .fd = -1};
}

_Static_assert(IPS_REMAPS * sizeof(struct ips_ctl_remap_state) <= (size_t)OUT_ROOM, "all of them fit into an answer");
_Static_assert(IPS_SERVERS * sizeof(struct ips_ctl_server_state) <= (size_t)OUT_ROOM, "and of these");
int op_flows(struct call *c) {
  static struct ips_ctl_server_state servers[IPS_SERVERS]; /* main thread only */
  struct ips_ctl_remap_state remaps[IPS_REMAPS];
  struct flows_order o = order_of(c);
  o.remaps = remaps;
  o.servers = servers;
  return answer(c, &o, tell(c->control, &o));
}

int op_sessions_feed(struct call *c) {
  struct flows_order o = order_of(c);
  struct ips_ctl_feed feed;
  void *fed = NULL;
  memcpy(&feed, c->payload, sizeof feed);
  int status = c->fd >= 0 || feed.count ? map_sealed(c, &fed, &o.fed_bytes) : IPS_CTL_OK;
  if (status != IPS_CTL_OK) return status;
  o.fed = fed;
  status = answer(c, &o, tell(c->control, &o));
  if (fed) munmap(fed, o.fed_bytes);
  return status;
}

int op_nat_addresses(struct call *c) {
  struct flows_order o = order_of(c);
  o.fd = c->reply_fd = memfd_new("ipshare-nat-addresses", 0, &(void *){NULL});
  if (o.fd < 0) return refuse(c, IPS_CTL_SYSTEM, "memfd_create: %s", strerror(errno));
  int status = answer(c, &o, tell(c->control, &o));
  if (status == IPS_CTL_OK && memfd_seal(o.fd, NULL, 0))
    return refuse(c, IPS_CTL_SYSTEM, "sealing: %s", strerror(errno));
  return status;
}

/* ---- closing ---- */

static struct {
  bool runs;
  struct flows_order order;
  uint32_t client, seq;
} closing;

static int close_some(struct control *c) {
  int status = tell(c, &closing.order);
  closing.runs = status == FLOWS_MORE;
  if (closing.runs) eventfd_signal(c->engine->wake_event);
  return status;
}

int op_sessions_close(struct call *c) {
  if (closing.runs && control_client(c->control, closing.client))
    return refuse(c, IPS_CTL_TOO_MANY, "other sessions are being closed: try again");
  closing.order = order_of(c);
  closing.client = c->client->number;
  closing.seq = c->head.seq;
  int status = close_some(c->control);
  c->deferred = status == FLOWS_MORE;
  return c->deferred ? IPS_CTL_OK : answer(c, &closing.order, status);
}

/* Whose client has gone ends where it is. */
static void answer_closing(struct control *c) {
  struct client *client = closing.runs ? control_client(c, closing.client) : NULL;
  struct ips_ctl_request to = {.op = IPS_CTL_SESSIONS_CLOSE, .seq = closing.seq};
  struct ips_ctl_error error;
  closing.runs = client != NULL;
  int status = client ? close_some(c) : FLOWS_MORE;
  if (status == FLOWS_MORE) return;
  explain(&error, &closing.order);
  if (status == IPS_CTL_OK)
    control_reply(client, &to, status, &closing.order.reply, (uint32_t)closing.order.reply_bytes, -1);
  else control_reply(client, &to, status, &error, sizeof error, -1);
}

/* ---- the dump ---- */

static struct {
  pthread_t thread;
  bool runs;
  _Atomic bool done, give_up;
  struct engine *engine;
  struct flows_order order;
  int status;
  uint32_t client, seq, op;
} dump = {.order.fd = -1};

static void *run_dump(void *unused) {
  (void)unused;
  struct flows_order *o = &dump.order;
  do dump.status = flows_order(dump.engine->flows, NULL, o);
  while (dump.status == FLOWS_MORE && !atomic_load(&dump.give_up));
  if (dump.status == IPS_CTL_OK && memfd_seal(o->fd, NULL, 0)) {
    dump.status = IPS_CTL_SYSTEM;
    o->sentence = "sealing";
    o->error = errno;
  }
  atomic_store(&dump.done, true);
  eventfd_signal(dump.engine->wake_event);
  return NULL;
}

/* Whose result nobody wants any more, or was told. */
static void dump_end(void) {
  if (dump.runs) {
    atomic_store(&dump.give_up, true);
    pthread_join(dump.thread, NULL);
  }
  if (dump.order.fd >= 0) close(dump.order.fd);
  free(dump.order.some);
  dump.order = (struct flows_order){.fd = -1};
  dump.runs = false;
}

/* Small tables are done with the first slice. */
int op_sessions_dump(struct call *c) {
  if (dump.runs && !control_client(c->control, dump.client)) dump_end();
  if (dump.runs) return refuse(c, IPS_CTL_TOO_MANY, "another dump of the sessions is under way: try again");
  struct flows_order *o = &dump.order;
  *o = order_of(c);
  o->fd = memfd_new("ipshare-sessions", 0, &(void *){NULL});
  o->some = malloc(FLOWS_SLICE * sizeof *o->some);
  dump.engine = c->control->engine;
  dump.client = c->client->number;
  dump.seq = c->head.seq;
  dump.op = c->head.op;
  atomic_store(&dump.done, false);
  atomic_store(&dump.give_up, false);
  int status = o->fd < 0 || !o->some ? IPS_CTL_SYSTEM : tell(c->control, o);
  int error = status == FLOWS_MORE ? pthread_create(&dump.thread, NULL, run_dump, NULL)
              : status == IPS_CTL_OK && memfd_seal(o->fd, NULL, 0) ? errno
                                                                    : 0;
  dump.runs = c->deferred = status == FLOWS_MORE && !error;
  if (dump.runs) return IPS_CTL_OK;
  if (status == IPS_CTL_SYSTEM && !o->error) error = ENOMEM;
  if (error) status = IPS_CTL_SYSTEM, o->sentence = "the dump could not begin", o->error = error;
  if (answer(c, o, status) == IPS_CTL_OK) c->reply_fd = o->fd, o->fd = -1;
  dump_end();
  return status;
}

static void answer_dump(struct control *c) {
  if (!dump.runs || !atomic_load(&dump.done)) return;
  struct client *client = control_client(c, dump.client);
  struct ips_ctl_request to = {.op = (uint16_t)dump.op, .seq = dump.seq};
  struct ips_ctl_error error;
  explain(&error, &dump.order);
  if (client && dump.status == IPS_CTL_OK)
    control_reply(client, &to, IPS_CTL_OK, &dump.order.reply, (uint32_t)dump.order.reply_bytes,
                  dump.order.fd);
  else if (client) control_reply(client, &to, dump.status, &error, sizeof error, -1);
  dump_end();
}

/* The table that is listed may be the remap's own. */
static void end_dump_of(struct control *c, uint64_t remap) {
  static const struct ips_ctl_error gone = {.text = "the remap was cleared meanwhile"};
  struct ips_ctl_session_filter unused;
  const struct ips_sessions *table = flows_remap_table(c->engine->flows, remap, &unused);
  if (!dump.runs || dump.order.table != table || table == c->engine->flows->sessions) return;
  struct client *client = control_client(c, dump.client);
  struct ips_ctl_request to = {.op = (uint16_t)dump.op, .seq = dump.seq};
  if (client) control_reply(client, &to, IPS_CTL_BAD_ARGUMENT, &gone, sizeof gone, -1);
  dump_end();
}

int op_remap_clear(struct call *c) {
  struct ips_ctl_remap_id which;
  memcpy(&which, c->payload, sizeof which);
  end_dump_of(c->control, which.id);
  return op_flows(c);
}

void answer_flows(struct control *c) {
  answer_closing(c);
  answer_dump(c);
}

void stop_dump(void) { dump_end(); }
