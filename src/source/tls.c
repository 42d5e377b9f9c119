/*
 * Initializes OpenSSL on the first TLS connection to a git server, and not whenever a repository is opened.
 *
 * libgit2 initializes it together with itself, and reads all certificates of the system, which takes longer than all else that
 * a cached build of a local repository does. The linker puts these functions in place of libgit2's own (`--wrap` in build.rs).
 * libgit2 defers in the same way, by the same function, where it loads OpenSSL at run time (`streams/openssl.c`).
 */
#include <pthread.h>

struct git_stream;

int __real_git_openssl_stream_global_init(void);
int __real_git_openssl_stream_new(struct git_stream **, const char *, const char *);
int __real_git_openssl_stream_wrap(struct git_stream **, struct git_stream *, const char *);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int is_started;

/* 0, or libgit2's error code; after an error the next stream tries again. */
static int start(void)
{
    int error = 0;

    pthread_mutex_lock(&lock);
    if (!is_started) {
        error = __real_git_openssl_stream_global_init();
        is_started = !error;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

int __wrap_git_openssl_stream_global_init(void)
{
    return 0;
}

int __wrap_git_openssl_stream_new(struct git_stream **out, const char *host, const char *port)
{
    int error = start();

    return error ? error : __real_git_openssl_stream_new(out, host, port);
}

int __wrap_git_openssl_stream_wrap(struct git_stream **out, struct git_stream *in, const char *host)
{
    int error = start();

    return error ? error : __real_git_openssl_stream_wrap(out, in, host);
}
