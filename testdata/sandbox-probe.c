/* Says of each of many system calls whether it is denied: lines of a name and an error. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static void say(const char *name, long result) {
    const char *text = result >= 0 ? "0" : errno == EPERM ? "EPERM" : errno == ENOSYS ? "ENOSYS" : strerror(errno);
    printf("%s %s\n", name, text);
    fflush(stdout);
}
int main(void) {
    say("alg", socket(38, SOCK_SEQPACKET, 0));
    say("vsock", socket(40, SOCK_STREAM, 0));
    say("packet", socket(17, SOCK_RAW, 0));
    say("netlink-generic", socket(16, SOCK_RAW, 16));
    say("netlink-route", socket(16, SOCK_RAW, 0));
    say("inet", socket(AF_INET, SOCK_STREAM, 0));
    say("unshare", unshare(CLONE_NEWUSER));
    say("clone-newuser", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    say("clone3", syscall(435, 0, 0));
    say("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
    say("umount", syscall(SYS_umount2, "/tmp", 2));
    say("pivot_root", syscall(SYS_pivot_root, ".", "."));
    say("open_tree", syscall(428, -100, "/", 1));
    say("open_tree_attr", syscall(467, -100, "/", 1, 0, 0));
    say("fsopen", syscall(430, "tmpfs", 0));
    say("io_uring", syscall(425, 1, 0));
    say("bpf", syscall(SYS_bpf, 0, 0, 0));
    say("perf", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 1));
    say("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    say("ptrace-1", ptrace(PTRACE_ATTACH, 1, 0, 0));
    pid_t child = fork();
    if (child == 0) { pause(); _exit(0); }
    say("ptrace-own", ptrace(PTRACE_SEIZE, child, 0, 0));
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    say("tiocsti", syscall(SYS_ioctl, 0, 0x5412UL, "x"));
    say("tiocsti-high", syscall(SYS_ioctl, 0, 0x100005412UL, "x"));
    say("personality", syscall(SYS_personality, 0x0040000UL));
    say("personality-read", syscall(SYS_personality, 0xffffffffUL));
    say("mknod", mknod("/tmp/null", S_IFCHR | 0666, 0x103));
    say("mkfifo", mkfifo("/tmp/fifo", 0666));
    say("setns", setns(0, 0));
#ifdef __x86_64__
    say("x32-unshare", syscall(0x40000000 + SYS_unshare, CLONE_NEWUSER));
#else
    printf("x32-unshare EPERM\n");
#endif
    return 0;
}
