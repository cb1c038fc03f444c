/* control.c: the control socket: clients come, ask, go.
 *
 * The main thread serves everyone from one epoll loop, and never waits for a client: a
 * reply that its socket has no room for ends that client. A message that is no request of ours is
 * answered with what is wrong with it. Ownership of the socket's path is a lock on PATH.lock, which the
 * kernel drops with the process, however it dies; so a left-over socket file is
 * replaced and a live one is not.
 */
#define _GNU_SOURCE
#include "control.h"
#include "dispatch.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>

static int lock_path(const char *path) {
  char lock[sizeof(((struct sockaddr_un *)0)->sun_path) + 8];
  snprintf(lock, sizeof lock, "%s.lock", path);
  int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return -fail(EXIT_SOCKET, "create its directory, or choose another --socket", "cannot create %s: %s",
                 lock, strerror(errno));
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  close(fd);
  return -fail(EXIT_SOCKET, "stop it first, or choose another --socket", "another engine serves %s", path);
}

int control_listen(const char *path, int *lock_fd) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  struct stat st;
  if (strlen(path) >= sizeof name.sun_path)
    return -fail(EXIT_SOCKET, "choose a shorter --socket", "%s is longer than a socket's path may be", path);
  if ((*lock_fd = lock_path(path)) < 0) return *lock_fd;
  if (lstat(path, &st) == 0 && (!S_ISSOCK(st.st_mode) || unlink(path)))
    return -fail(EXIT_SOCKET, "choose another --socket, or remove it", "%s exists and is no socket of ours",
                 path);
  memcpy(name.sun_path, path, strlen(path));
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  mode_t before = umask(0177); /* 0600 from the first moment on */
  int failed = fd < 0 || bind(fd, (struct sockaddr *)&name, sizeof name) || listen(fd, MAX_CLIENTS);
  umask(before);
  if (failed)
    return -fail(EXIT_SOCKET, "choose another --socket", "cannot make the socket %s: %s", path,
                 strerror(errno));
  return fd;
}

static void watch(struct control *c, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event);
}

struct client *control_client(struct control *c, uint32_t number) {
  for (int i = 0; i < MAX_CLIENTS; i++)
    if (c->clients[i].fd >= 0 && c->clients[i].number == number) return &c->clients[i];
  return NULL;
}

static void drop_client(struct control *c, struct client *client) {
  if (c->prepared_by == client->number) {
    ips_tables_abort(c->engine->tables);
    c->prepared_by = 0;
  }
  for (int i = 0; i < MAX_WAITERS; i++)
    if (c->waiters[i].client == client->number) c->waiters[i].client = 0;
  taps_client_gone(c->engine->taps, (int)client->number);
  close(client->fd);
  client->fd = -1;
  c->n_clients--;
}

int control_reply(struct client *client, const struct ips_ctl_request *to, int status, const void *payload,
                  uint32_t bytes, int fd) {
  struct ips_ctl_reply head = {.magic = IPS_CTL_MAGIC, .version = IPS_CTL_VERSION, .op = to->op,
                               .seq = to->seq, .bytes = bytes, .status = (uint32_t)status};
  struct iovec parts[2] = {{&head, sizeof head}, {(void *)(uintptr_t)payload, bytes}};
  union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } room = {0};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  if (fd >= 0) {
    message.msg_control = &room;
    message.msg_controllen = sizeof room;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    *rights = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                               .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  }
  return sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1 : 0;
}

static void accept_client(struct control *c) {
  int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  for (int i = 0; i < MAX_CLIENTS; i++) {
    if (c->clients[i].fd >= 0) continue;
    c->clients[i] = (struct client){.fd = fd, .number = ++c->next_number};
    c->n_clients++;
    int bytes = 4 * IPS_CTL_MAX_MESSAGE;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    watch(c, fd);
    return;
  }
  struct client surplus = {.fd = fd};
  struct ips_ctl_error error = {.text = "too many clients: close one of their connections"};
  control_reply(&surplus, &(struct ips_ctl_request){.op = 0}, IPS_CTL_TOO_MANY, &error, sizeof error, -1);
  close(fd);
}

/* The first descriptor that came along; any other is closed. */
static int received_fd(struct msghdr *message) {
  int kept = -1;
  for (struct cmsghdr *m = CMSG_FIRSTHDR(message); m; m = CMSG_NXTHDR(message, m)) {
    if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS) continue;
    size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(m) + i * sizeof fd, sizeof fd);
      if (kept < 0) kept = fd;
      else close(fd);
    }
  }
  return kept;
}

/* What is wrong with the frame of a message, before anyone looks at its payload. */
static int check_frame(struct call *call, size_t bytes, int flags) {
  if (bytes < sizeof call->head || flags & MSG_TRUNC)
    return refuse(call, IPS_CTL_MALFORMED, "a request has between %zu and %d bytes", sizeof call->head,
                  IPS_CTL_MAX_MESSAGE);
  if (call->head.magic != IPS_CTL_MAGIC)
    return refuse(call, IPS_CTL_MALFORMED, "this is no request to ipshare-engine");
  if (call->head.version != IPS_CTL_VERSION)
    return refuse(call, IPS_CTL_FOREIGN_VERSION,
                  "this engine speaks version %d of the control protocol, not %u", IPS_CTL_VERSION,
                  call->head.version);
  if (call->head.bytes != bytes - sizeof call->head)
    return refuse(call, IPS_CTL_BAD_LENGTH, "the request announces %u bytes and carries %zu",
                  call->head.bytes, bytes - sizeof call->head);
  return IPS_CTL_OK;
}

/* One message of one client. False: the client is gone. */
static bool serve(struct control *c, struct client *client) {
  static _Alignas(8) uint8_t in[IPS_CTL_MAX_MESSAGE], out[OUT_ROOM];
  union { struct cmsghdr align; char bytes[CMSG_SPACE(8 * sizeof(int))]; } room;
  struct iovec part = {in, sizeof in};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &room,
                           .msg_controllen = sizeof room};
  ssize_t n = recvmsg(client->fd, &message, MSG_CMSG_CLOEXEC);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  struct call call = {.control = c, .client = client, .payload = in + sizeof call.head, .out = out,
                      .reply_fd = -1};
  call.fd = received_fd(&message);
  if (n == 0) { /* closed; an empty message looks the same and is treated so */
    if (call.fd >= 0) close(call.fd);
    return false;
  }
  memcpy(&call.head, in, (size_t)n < sizeof call.head ? (size_t)n : sizeof call.head);
  int status = check_frame(&call, (size_t)n, message.msg_flags);
  if (status == IPS_CTL_OK) status = control_call(&call);
  int sent = 0;
  if (status != IPS_CTL_OK)
    sent = control_reply(client, &call.head, status, &call.error, sizeof call.error, -1);
  else if (!call.deferred)
    sent = control_reply(client, &call.head, status, out, call.out_bytes, call.reply_fd);
  if (call.fd >= 0) close(call.fd);
  if (call.reply_fd >= 0) close(call.reply_fd);
  return sent == 0;
}

/* Once a second: memory, taps, and the service manager's watchdog, which hears from us only
 * while no worker is hung. */
static void tick(struct control *c) {
  uint64_t now = clock_ns(CLOCK_BOOTTIME);
  c->reclaimed_bytes += ips_tables_reclaim(c->engine->tables);
  taps_tick(c->engine->taps);
  dispatch_tick(c->engine);
  bool healthy = workers_hung(c, now) == 0;
  if (c->watchdog_ns && healthy && now - c->watchdog_at >= c->watchdog_ns / 2) {
    notify("WATCHDOG=1");
    c->watchdog_at = now;
  }
}

static void handle(struct control *c, int fd) {
  uint64_t count;
  if (fd == c->listen_fd) {
    accept_client(c);
  } else if (fd == c->signal_fd) {
    c->ending = true;
  } else if (fd == c->timer_fd) {
    if (read(fd, &count, sizeof count) > 0) tick(c);
  } else if (fd == c->engine->dispatch->netlink) {
    dispatch_follow(c->engine);
  } else if (fd == c->engine->wake_event) {
    if (read(fd, &count, sizeof count) > 0) taps_tick(c->engine->taps);
  } else {
    for (int i = 0; i < MAX_CLIENTS; i++)
      if (c->clients[i].fd == fd && !serve(c, &c->clients[i])) drop_client(c, &c->clients[i]);
  }
  answer_waiters(c);
  answer_pair_waiters(c);
  answer_flows(c);
}

static int prepare_loop(struct control *c) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  c->epoll = epoll_create1(EPOLL_CLOEXEC);
  c->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  c->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
  if (c->epoll < 0 || c->signal_fd < 0 || c->timer_fd < 0) return -1;
  c->watchdog_ns = notify_watchdog_ns();
  uint64_t period = NS_PER_S;
  if (c->watchdog_ns && c->watchdog_ns / 4 < period) period = c->watchdog_ns / 4;
  struct timespec every = {.tv_sec = (time_t)(period / NS_PER_S), .tv_nsec = (long)(period % NS_PER_S)};
  timerfd_settime(c->timer_fd, 0, &(struct itimerspec){.it_interval = every, .it_value = every}, NULL);
  watch(c, c->listen_fd);
  watch(c, c->signal_fd);
  watch(c, c->timer_fd);
  watch(c, c->engine->wake_event);
  watch(c, c->engine->dispatch->netlink);
  return 0;
}

int control_run(struct engine *e, int listen_fd) {
  struct control *c = calloc(1, sizeof *c);
  if (!c) return fail(EXIT_SYSTEM, "free some", "out of memory");
  c->engine = e;
  c->listen_fd = listen_fd;
  for (int i = 0; i < MAX_CLIENTS; i++) c->clients[i].fd = -1;
  if (prepare_loop(c))
    return fail(EXIT_SYSTEM, "raise the limit of open files", "cannot set up events: %s", strerror(errno));
  notify("READY=1");
  while (!c->ending && !atomic_load(&e->fatal)) {
    struct epoll_event events[16];
    int n = epoll_wait(c->epoll, events, 16, -1);
    for (int i = 0; i < n; i++) handle(c, events[i].data.fd);
  }
  notify("STOPPING=1");
  stop_dump();
  for (int i = 0; i < MAX_CLIENTS; i++)
    if (c->clients[i].fd >= 0) drop_client(c, &c->clients[i]);
  close(c->epoll);
  close(c->signal_fd);
  close(c->timer_fd);
  free(c);
  return atomic_load(&e->fatal);
}
