/* tun.c: the two multi-queue TUN devices.
 *
 * They are not persistent: they live as long as a descriptor of theirs is open, so a
 * killed engine leaves no device and no route behind. The first queue is opened with
 * IFF_TUN_EXCL: without it TUNSETIFF would silently join another process's device. Addresses,
 * routes and "up" are the agent's business (net/).
 */
#define _GNU_SOURCE
#include "engine.h"
#include "vnet.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
/* Packets that the kernel may queue for us per queue. The kernel's 500 overflow while a worker is
 * not scheduled for a millisecond at 1 Mpps; longer queues only add delay. */
enum { QUEUE_PACKETS = 2000 };
static const char TUN_PATH[] = "/dev/net/tun";

static int explain(const char *name, const char *step) {
  int reason = errno;
  if (reason == EPERM || reason == EACCES)
    return fail(EXIT_PRIVILEGE, "run it as root or with CAP_NET_ADMIN in this network namespace",
                "no permission to create network device %s", name);
  if (reason == EBUSY)
    return fail(EXIT_NAME_TAKEN,
                "remove it with 'ip link del', stop the engine that has it, or choose other names "
                "with --outer and --inner",
                "network device %s exists already", name);
  if (reason == EINVAL && !strcmp(step, "TUNSETIFF"))
    return fail(
      EXIT_NAME_TAKEN, "choose other names with --outer and --inner",
      "%s cannot be the name of a TUN device: it is taken by another kind of device, or no valid name", name);
  return fail(EXIT_SYSTEM, "see the kernel's log", "%s of %s: %s", step, name, strerror(reason));
}

static int open_node(void) {
  int fd = open(TUN_PATH, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0) return fd;
  if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
    return -fail(EXIT_NO_TUN, "load the module with 'modprobe tun', or give the container /dev/net/tun",
                 "%s does not exist", TUN_PATH);
  if (errno == EPERM || errno == EACCES)
    return -fail(EXIT_PRIVILEGE, "run it as root, or allow the device in the container",
                 "no permission to open %s", TUN_PATH);
  return -fail(EXIT_SYSTEM, "see the kernel's log", "cannot open %s: %s", TUN_PATH, strerror(errno));
}

/* Best set of offloads that the kernel takes; USO exists since Linux 6.2. */
static int set_offload(int fd, uint32_t *features) {
  const unsigned tso = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  *features = IPS_CTL_FEATURE_TSO | IPS_CTL_FEATURE_USO;
  if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)(tso | TUN_F_USO4 | TUN_F_USO6)) == 0) return 0;
  *features = IPS_CTL_FEATURE_TSO;
  if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)tso) == 0) return 0;
  *features = 0;
  return ioctl(fd, TUNSETOFFLOAD, (unsigned long)TUN_F_CSUM);
}

/* Returns the descriptor, or minus an exit code. */
static int open_queue(const char *name, bool first, uint32_t *features) {
  int fd = open_node();
  if (fd < 0) return fd;
  struct ifreq request = {.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE |
                                               (first ? IFF_TUN_EXCL : 0))};
  memcpy(request.ifr_name, name, strlen(name));
  int header = VNET_BYTES;
  const char *failed = NULL;
  if (ioctl(fd, TUNSETIFF, &request) < 0) failed = "TUNSETIFF";
  else if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) failed = "TUNSETVNETHDRSZ";
  else if (set_offload(fd, features) < 0) failed = "TUNSETOFFLOAD";
  if (!failed) return fd;
  int code = explain(name, failed);
  close(fd);
  return -code;
}

static void tune(const char *name, uint32_t *ifindex) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = {.ifr_qlen = QUEUE_PACKETS};
  memcpy(request.ifr_name, name, strlen(name));
  ioctl(fd, SIOCSIFTXQLEN, &request); /* refused: the kernel's own length stays */
  close(fd);
  *ifindex = if_nametoindex(name);
}

int tun_open_all(struct engine *e, int *fds) {
  for (int side = 0; side < SIDES; side++) {
    const char *name = e->options.device[side];
    for (uint32_t i = 0; i < e->options.workers; i++) {
      int fd = open_queue(name, i == 0, &e->features);
      if (fd < 0) return -fd;
      fds[i * SIDES + (uint32_t)side] = fd;
      if (i == 0) tune(name, &e->ifindex[side]); /* before more queues: each is allocated with this length */
    }
  }
  return EXIT_OK;
}
