/* init.c: all that runs in the guest of tests/guest_vm.py: process 1 of a Linux whose disk is this program.
 *
 * Loads the modules /m/0, /m/1, ... in that order, gives eth0 the address that the kernel's command line names
 * (address=, gateway=: the gateway is on link, whatever the address), and answers TCP on a port with what it
 * gets, for any number of connections. A byte more on the first connection of all tells of nothing: the guest
 * has no other state than its connections, so whoever finds them open has found the same guest.
 * It never ends: a kernel without process 1 stops.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 512, PORT = 7 };

static void said(const char *what) {
  printf("guest: %s\n", what);
  fflush(stdout);
}

static void fail(const char *what) {
  perror(what);
  for (;;) pause();
}

static void load_modules(void) {
  char name[16];
  for (int i = 0;; i++) {
    snprintf(name, sizeof name, "/m/%d", i);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (syscall(SYS_finit_module, fd, "", 0)) perror(name);
    close(fd);
  }
}

static struct sockaddr address_of(const char *text) {
  struct sockaddr_in in = {.sin_family = AF_INET};
  struct sockaddr out;
  if (inet_pton(AF_INET, text, &in.sin_addr) != 1) fail(text);
  memcpy(&out, &in, sizeof out);
  return out;
}

/* The word after `key` on the kernel's command line. */
static const char *word(const char *key) {
  static char line[4096];
  int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
  if (n <= 0) fail("/proc/cmdline");
  close(fd);
  line[n] = 0;
  char *at = strstr(line, key);
  if (!at) fail(key);
  at += strlen(key);
  at[strcspn(at, " \n")] = 0;
  return at;
}

static void route(int fd, const char *to, const char *gateway) {
  struct rtentry r = {.rt_flags = RTF_UP, .rt_dev = "eth0"};
  r.rt_dst = address_of(to);
  r.rt_genmask = address_of(gateway ? "0.0.0.0" : "255.255.255.255");
  if (gateway) r.rt_gateway = address_of(gateway), r.rt_flags |= RTF_GATEWAY;
  else r.rt_flags |= RTF_HOST;
  if (ioctl(fd, SIOCADDRT, &r)) fail(to);
}

static void configure(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq r = {.ifr_name = "eth0"};
  char gateway[64];
  r.ifr_addr = address_of(word("address="));
  if (ioctl(fd, SIOCSIFADDR, &r)) fail("address");
  r.ifr_addr = address_of("255.255.255.255");
  if (ioctl(fd, SIOCSIFNETMASK, &r)) fail("netmask");
  r.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(fd, SIOCSIFFLAGS, &r)) fail("up");
  snprintf(gateway, sizeof gateway, "%s", word("gateway="));
  route(fd, gateway, NULL);
  route(fd, "0.0.0.0", gateway);
  close(fd);
}

static int listening(void) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 64)) fail("listen");
  return fd;
}

/* False: the connection is over. */
static int answer(int fd) {
  static char data[65536];
  ssize_t n = read(fd, data, sizeof data);
  for (ssize_t done = 0; done < n;) {
    ssize_t m = write(fd, data + done, (size_t)(n - done));
    if (m <= 0) return 0;
    done += m;
  }
  return n > 0;
}

int main(void) {
  static struct pollfd at[MOST];
  nfds_t n = 1;
  mkdir("/proc", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  load_modules();
  configure();
  at[0] = (struct pollfd){.fd = listening(), .events = POLLIN};
  said("ready");
  for (;;) {
    if (poll(at, n, -1) < 0) continue;
    for (nfds_t i = n; i-- > 1;)
      if (at[i].revents && !answer(at[i].fd)) close(at[i].fd), at[i] = at[--n];
    if (at[0].revents && n < MOST) {
      int fd = accept(at[0].fd, NULL, NULL);
      if (fd >= 0) at[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
  }
}
