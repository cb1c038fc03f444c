/* notify.c: the service manager's notification protocol (sd_notify(3)): one datagram of
 * text to the socket that NOTIFY_SOCKET names. Also how ipshare's own launcher learns
 * that the engine is ready. */
#include "engine.h"
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (!path || strlen(path) < 2 || strlen(path) >= sizeof to.sun_path) return;
  memcpy(to.sun_path, path, strlen(path));
  if (path[0] == '@') to.sun_path[0] = 0; /* abstract */
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, bytes); /* or nobody is there */
  close(fd);
}

uint64_t notify_watchdog_ns(void) {
  const char *interval = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
  if (!interval || (pid && strtoul(pid, NULL, 10) != (unsigned long)getpid())) return 0;
  return strtoull(interval, NULL, 10) * 1000;
}
