/*
 * Cleared memory for the programs of a build step over musl, which has no variable like glibc's GLIBC_TUNABLES: preloaded
 * before libc (ld.so(8), LD_PRELOAD).
 *
 * What an allocation hands out is zero, up to the size that malloc_usable_size(3) tells. It uses only memset and
 * malloc_usable_size of libc (and dlsym where that exists), so it works with glibc too, for a base that has both. calloc(3) and
 * reallocarray(3) need no function here. A statically linked program does not load it.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define WEAK __attribute__((weak))

extern size_t malloc_usable_size(void *);
extern void *dlsym(void *, const char *) WEAK;
/* Of glibc before 2.34, where a program need not have dlsym. */
extern void *__libc_malloc(size_t) WEAK;
extern void *__libc_memalign(size_t, size_t) WEAK;
extern void *__libc_realloc(void *, size_t) WEAK;

static void *next(void **found, const char *name, void *otherwise)
{
    void *it = __atomic_load_n(found, __ATOMIC_RELAXED);
    if (!it) {
        it = dlsym ? dlsym((void *)-1L /* RTLD_NEXT */, name) : otherwise;
        __atomic_store_n(found, it, __ATOMIC_RELAXED);
    }
    return it;
}

/* Clears all of an allocation but its first `kept` bytes. */
static void *cleared(void *memory, size_t kept)
{
    size_t size = memory ? malloc_usable_size(memory) : 0;
    if (size > kept)
        memset((char *)memory + kept, 0, size - kept);
    return memory;
}

EXPORT void *malloc(size_t size)
{
    static void *found;
    void *(*real)(size_t) = next(&found, "malloc", __libc_malloc);
    return cleared(real(size), 0);
}

/* musl refuses to align if malloc alone is replaced. */
EXPORT void *aligned_alloc(size_t align, size_t size)
{
    static void *found;
    void *(*real)(size_t, size_t) = next(&found, "aligned_alloc", __libc_memalign);
    return cleared(real(align, size), 0);
}

EXPORT void *memalign(size_t align, size_t size)
{
    static void *found;
    void *(*real)(size_t, size_t) = next(&found, "memalign", __libc_memalign);
    return cleared(real(align, size), 0);
}

EXPORT int posix_memalign(void **out, size_t align, size_t size)
{
    if (align < sizeof(void *) || (align & (align - 1)))
        return EINVAL;
    void *memory = memalign(align, size);
    if (!memory)
        return ENOMEM;
    *out = memory;
    return 0;
}

/* An allocation may grow in its place. */
EXPORT void *realloc(void *memory, size_t size)
{
    static void *found;
    void *(*real)(void *, size_t) = next(&found, "realloc", __libc_realloc);
    size_t kept = memory ? malloc_usable_size(memory) : 0;
    return cleared(real(memory, size), kept);
}
