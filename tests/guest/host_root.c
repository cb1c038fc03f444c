/* host_root.c: process 1 of a guest whose files are those of the machine that runs it (tests/vpp/in_guest.py).
 *
 * Loads the modules /m/0, /m/1, ... in that order, mounts the machine's root (virtiofs, tag "host"), with a file
 * system in memory above it that takes all writes, and runs the shell script /script of its own image in there,
 * on the console. The last line that it prints is "guest: ended N", N being the script's exit status; then
 * the guest is switched off. Nothing that is written in it is left.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LONGEST = 65536 };

static void end(int status) {
  printf("\nguest: ended %d\n", status);
  fflush(stdout);
  sync();
  reboot(RB_POWER_OFF);
  for (;;) pause();
}

static void fail(const char *what) {
  perror(what);
  end(125);
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

/* A file system of that kind; its directory is made. */
static void put(const char *kind, const char *what, const char *where, unsigned long flags, const char *more) {
  mkdir(where, 0755);
  if (mount(what, where, kind, flags, more)) fail(where);
}

static void mount_all(void) {
  put("virtiofs", "host", "/host", MS_RDONLY, NULL);
  put("tmpfs", "above", "/above", 0, "size=75%");
  mkdir("/above/new", 0755);
  mkdir("/above/work", 0755);
  put("overlay", "root", "/root", 0, "lowerdir=/host,upperdir=/above/new,workdir=/above/work");
  put("proc", "proc", "/root/proc", 0, NULL);
  put("sysfs", "sysfs", "/root/sys", 0, NULL);
  put("devtmpfs", "dev", "/root/dev", 0, NULL);
  put("devpts", "devpts", "/root/dev/pts", 0, NULL);
  put("tmpfs", "shm", "/root/dev/shm", 0, "mode=1777");
  put("tmpfs", "tmp", "/root/tmp", 0, "mode=1777");
  put("tmpfs", "run", "/root/run", 0, "mode=755");
}

static const char *script(void) {
  static char text[LONGEST];
  int fd = open("/script", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (n <= 0) fail("/script");
  close(fd);
  return text;
}

int main(void) {
  const char *text = script();
  int status = 0;
  mkdir("/dev", 0755);
  mount("dev", "/dev", "devtmpfs", 0, NULL);
  load_modules();
  mount_all();
  pid_t child = fork();
  if (child < 0) fail("fork");
  if (!child) {
    setsid();
    if (chroot("/root") || chdir("/")) _exit(124);
    execl("/bin/sh", "sh", "-c", text, (char *)NULL);
    _exit(127);
  }
  for (pid_t gone; (gone = wait(&status)) != child;) /* orphans end here as well */
    if (gone < 0) fail("wait");
  end(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
