/*
 * A fixed clock for the programs of a build step: preloaded before libc (ld.so(8), LD_PRELOAD).
 *
 * T is the modification time of every file that the step finds. The time of day is T + 1 hour. Files written
 * since the step started appear as written after T and before that, in their order: make, Mix and configure scripts compare
 * such times. Monotonic clocks are not changed. It uses only errno of libc (and dlsym where that exists), so one file works
 * with glibc and musl. A statically linked program does not load it.
 */
#define _DEFAULT_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define AHEAD 3600

extern void *dlsym(void *, const char *) __attribute__((weak));

/* The two times, in seconds since 1970, are written into the file before it is loaded: `clock_library` in mod.rs finds the mark. */
static const volatile struct {
    char mark[16];
    long long then, began;
} step = {"phial's clock:", 0, 0};

#if defined(__x86_64__)
static long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static long call(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
#else
#error "no system calls known for this processor"
#endif

static int ended(long result)
{
    if (result < 0) {
        errno = (int)-result;
        return -1;
    }
    return (int)result;
}

typedef int (*gettime)(clockid_t, struct timespec *);

/* The next one reads the kernel's page (vdso(7)), which is faster than a system call: the BEAM asks all the time. */
static gettime next(void)
{
    static gettime found;
    gettime it = __atomic_load_n(&found, __ATOMIC_RELAXED);
    if (!it && dlsym) {
        it = (gettime)dlsym((void *)-1L /* RTLD_NEXT */, "clock_gettime");
        __atomic_store_n(&found, it, __ATOMIC_RELAXED);
    }
    return it;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *out)
{
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI) {
        out->tv_sec = step.then + AHEAD;
        out->tv_nsec = 0;
        return 0;
    }
    gettime real = next();
    return real ? real(clock, out) : ended(call(SYS_clock_gettime, clock, (long)out, 0, 0, 0));
}

EXPORT int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    (void)zone;
    out->tv_sec = step.then + AHEAD;
    out->tv_usec = 0;
    return 0;
}

EXPORT time_t time(time_t *out)
{
    if (out)
        *out = step.then + AHEAD;
    return step.then + AHEAD;
}

EXPORT int timespec_get(struct timespec *out, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, out) == 0 ? base : 0;
}

/* A time since the step began moves to the same distance after T, but never beyond what the clock says. */
static long long moved(long long when)
{
    if (when < step.began)
        return when;
    when = step.then + 1 + (when - step.began);
    return when < step.then + AHEAD ? when : step.then + AHEAD;
}

static int settled(long result, struct stat *file)
{
    if (result == 0) {
        file->st_atim.tv_sec = moved(file->st_atim.tv_sec);
        file->st_mtim.tv_sec = moved(file->st_mtim.tv_sec);
        file->st_ctim.tv_sec = moved(file->st_ctim.tv_sec);
    }
    return ended(result);
}

/* On these processors the kernel's `struct stat` is that of glibc and of musl, with 64 in the name or without. */
EXPORT int fstatat(int dir, const char *restrict path, struct stat *restrict file, int flags)
{
    return settled(call(SYS_newfstatat, dir, (long)path, (long)file, flags, 0), file);
}

EXPORT int stat(const char *restrict path, struct stat *restrict file)
{
    return fstatat(AT_FDCWD, path, file, 0);
}

EXPORT int lstat(const char *restrict path, struct stat *restrict file)
{
    return fstatat(AT_FDCWD, path, file, AT_SYMLINK_NOFOLLOW);
}

EXPORT int fstat(int fd, struct stat *file)
{
    return settled(call(SYS_fstat, fd, (long)file, 0, 0, 0), file);
}

EXPORT int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict file)
{
    long result = call(SYS_statx, dir, (long)path, flags, mask, (long)file);
    if (result == 0) {
        file->stx_atime.tv_sec = moved(file->stx_atime.tv_sec);
        file->stx_btime.tv_sec = moved(file->stx_btime.tv_sec);
        file->stx_ctime.tv_sec = moved(file->stx_ctime.tv_sec);
        file->stx_mtime.tv_sec = moved(file->stx_mtime.tv_sec);
    }
    return ended(result);
}

#define SAME(name, of) EXPORT __typeof__(of) name __attribute__((alias(#of)))
SAME(stat64, stat);
SAME(lstat64, lstat);
SAME(fstat64, fstat);
SAME(fstatat64, fstatat);

/* glibc before 2.33 has these instead. */
EXPORT int __xstat(int version, const char *path, struct stat *file) { return (void)version, stat(path, file); }
EXPORT int __lxstat(int version, const char *path, struct stat *file) { return (void)version, lstat(path, file); }
EXPORT int __fxstat(int version, int fd, struct stat *file) { return (void)version, fstat(fd, file); }
EXPORT int __fxstatat(int version, int dir, const char *path, struct stat *file, int flags)
{
    return (void)version, fstatat(dir, path, file, flags);
}
SAME(__xstat64, __xstat);
SAME(__lxstat64, __lxstat);
SAME(__fxstat64, __fxstat);
SAME(__fxstatat64, __fxstatat);
