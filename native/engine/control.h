/* control.h: the control socket's server: control.c (clients, framing), ops.c (operations), why.c. */
#ifndef CONTROL_H
#define CONTROL_H
#include "../ips_control_dispatch.h"
#include "../ips_control_remap.h"
#include "engine.h"

enum { MAX_CLIENTS = 64, MAX_WAITERS = 64 };

struct client { int fd; uint32_t number; }; /* number: never used again; taps and images are owned by it */
struct waiter { uint64_t about; uint32_t client, seq; uint16_t op; }; /* about: a tap, or what was seen of the pair */

struct control {
  struct engine *engine;
  int listen_fd, epoll, signal_fd, timer_fd;
  struct client clients[MAX_CLIENTS]; /* fd < 0: free */
  uint32_t n_clients, next_number;
  uint32_t prepared_by;               /* client number, 0: nobody */
  struct waiter waiters[MAX_WAITERS]; /* client 0: free */
  struct ips_ctl_tap_state ended[IPS_CTL_MAX_TAPS]; /* the last taps that ended, for who asks too late */
  uint32_t n_ended;
  uint64_t reclaimed_bytes;
  uint64_t watchdog_ns, watchdog_at;
  uint64_t loops[IPS_CTL_MAX_WORKERS], moved_ns[IPS_CTL_MAX_WORKERS]; /* hung workers: see workers_hung() */
  bool ending;
};

/* One request in hand. An operation returns a status; for OK it fills payload and reply_fd,
 * else `error`. */
struct call {
  struct control *control;
  struct client *client;
  struct ips_ctl_request head;
  const uint8_t *payload;        /* head.bytes of it */
  int fd;                        /* came with the request; -1: none. An operation that keeps it sets -1 */
  uint8_t *out;                  /* payload of the reply, room for OUT_ROOM */
  uint32_t out_bytes;
  int reply_fd;                  /* closed after sending; -1: none */
  bool deferred;                 /* the reply comes later */
  struct ips_ctl_error error;
};
enum { OUT_ROOM = IPS_CTL_MAX_MESSAGE - sizeof(struct ips_ctl_reply) };

/* ops.c */
int control_call(struct call *c);
int refuse(struct call *c, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
uint32_t workers_hung(struct control *c, uint64_t now_ns);
/* why.c */
int op_why(struct call *c);
void why_emit(void *arg, struct ips_pkt *p, int kind);
/* ops_tap.c */
int op_tap_start(struct call *c);
int op_tap_stop(struct call *c);
int op_tap_wait(struct call *c);
int op_tap_list(struct call *c);
void answer_waiters(struct control *c);
/* False: too many wait. The reply comes later. */
bool wait_later(struct call *c, uint64_t about);
/* ops_pair.c */
int op_pair_set(struct call *c);
int op_pair_clear(struct call *c);
int op_pair_state(struct call *c);
int op_pair_wait(struct call *c);
int op_pair_command(struct call *c);
void answer_pair_waiters(struct control *c);
/* ops_flows.c */
int op_flows(struct call *c); /* sessions, NAT, mirror, remaps, clusters, NAT log: all that needs no descriptor and no time */
int op_sessions_dump(struct call *c); /* and a remap's flows */
int op_sessions_close(struct call *c);
int op_nat_addresses(struct call *c);
int op_sessions_feed(struct call *c);
int op_remap_clear(struct call *c);
int map_sealed(struct call *c, void **map, size_t *bytes); /* ops.c: the memfd that came with it; *map NULL: none */
void answer_flows(struct control *c); /* what goes on between requests */
void stop_dump(void);
/* ops_dispatch.c */
int op_dispatch_set(struct call *c);
int op_dispatch_state(struct call *c);
/* control.c */
int control_reply(struct client *client, const struct ips_ctl_request *to, int status, const void *payload,
                  uint32_t bytes, int fd);
struct client *control_client(struct control *c, uint32_t number); /* NULL: gone */
#endif
