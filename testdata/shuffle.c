/*
 * Hands out the entries of every directory in another order: preloaded, it stands before readdir(3) of a program that is
 * linked with glibc. The order follows from the names, so a failure can be seen again.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct listing {
    DIR *dir;
    struct dirent64 *entries;
    size_t count, next;
    struct listing *rest;
};

static struct listing *listings;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned weight(const char *name)
{
    unsigned hash = 2166136261u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619u;
    return hash ^ hash >> 13;
}

static int compare(const void *a, const void *b)
{
    unsigned left = weight(((const struct dirent64 *)a)->d_name), right = weight(((const struct dirent64 *)b)->d_name);
    return left < right ? -1 : left > right;
}

static struct listing *of(DIR *dir)
{
    struct dirent64 *(*real)(DIR *) = (struct dirent64 * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir64");
    struct listing *found = calloc(1, sizeof *found);
    struct dirent64 *entry;
    while ((entry = real(dir))) {
        found->entries = realloc(found->entries, (found->count + 1) * sizeof *entry);
        memcpy(&found->entries[found->count++], entry, entry->d_reclen);
    }
    qsort(found->entries, found->count, sizeof *entry, compare);
    found->dir = dir;
    return found;
}

struct dirent64 *readdir64(DIR *dir)
{
    pthread_mutex_lock(&lock);
    struct listing *at = listings;
    while (at && at->dir != dir)
        at = at->rest;
    if (!at) {
        at = of(dir);
        at->rest = listings;
        listings = at;
    }
    struct dirent64 *entry = at->next < at->count ? &at->entries[at->next++] : NULL;
    pthread_mutex_unlock(&lock);
    return entry;
}

int closedir(DIR *dir)
{
    pthread_mutex_lock(&lock);
    for (struct listing **at = &listings; *at; at = &(*at)->rest)
        if ((*at)->dir == dir) {
            struct listing *gone = *at;
            *at = gone->rest;
            free(gone->entries);
            free(gone);
            break;
        }
    pthread_mutex_unlock(&lock);
    return ((int (*)(DIR *))dlsym(RTLD_NEXT, "closedir"))(dir);
}
