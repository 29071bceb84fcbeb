/* Lets system calls fail that a process makes on files below a folder: the n-th once, or all from the n-th on.

   For LD_PRELOAD. `arm` begins, in the process that calls it; `calls` and what follows it are shared with the processes that
   it was forked from. A call that fails has no effect, but that a file is closed all the same. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN, READ, WRITE, SYNC, RENAME, LINK, UNLINK, STAT, TRUNCATE, MKDIR, MMAP, CLOSE };

#define MOST 65536

struct record {
    atomic_long calls;    /* how many there were */
    atomic_long failed;   /* how many of them failed */
    char first[PATH_MAX]; /* the path of the first that failed */
    char kinds[MOST];     /* of which kind each of them was */
};

static struct record *record;
static char folder[PATH_MAX];
static size_t length; /* of the folder's name; 0: not armed */
static long fail_from, fail_to;
static int number;
static int only; /* the kind that fails, or -1: any */

__attribute__((constructor)) static void begin(void)
{
    record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

struct record *faults_record(void) { return record; }

void faults_arm(const char *path, int kind, long from, long to, int error)
{
    memset(record, 0, sizeof *record);
    strncpy(folder, path, PATH_MAX - 1);
    only = kind, fail_from = from, fail_to = to, number = error;
    length = strlen(folder);
}

static int fails(enum kind kind, const char *path)
{
    if (strncmp(path, folder, length) || (path[length] != '/' && path[length]))
        return 0;
    if (only >= 0 && (int)kind != only)
        return 0;
    long call = atomic_fetch_add(&record->calls, 1);
    if (call < MOST)
        record->kinds[call] = kind;
    if (call < fail_from || call >= fail_to)
        return 0;
    if (!atomic_fetch_add(&record->failed, 1))
        strncpy(record->first, path, PATH_MAX - 1);
    errno = number;
    return 1;
}

static int fails_open(enum kind kind, int descriptor)
{
    char name[64], path[PATH_MAX];
    if (!length || descriptor < 0)
        return 0;
    int before = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(name, path, sizeof path - 1);
    errno = before;
    if (size < 0)
        return 0;
    path[size] = 0;
    return fails(kind, path);
}

static int fails_at(enum kind kind, int descriptor, const char *path)
{
    char name[64], whole[2 * PATH_MAX];
    if (!length || !path)
        return 0;
    if (*path == '/')
        return fails(kind, path);
    if (!*path)
        return fails_open(kind, descriptor);
    int before = errno;
    snprintf(name, sizeof name, descriptor == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(name, whole, PATH_MAX - 1);
    errno = before;
    if (size < 0)
        return 0;
    snprintf(whole + size, PATH_MAX, "/%s", path);
    return fails(kind, whole);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define WRAP(type, failure, name, parameters, arguments, question) \
    type name parameters \
    { \
        REAL(name); \
        if (question) \
            return failure; \
        return real arguments; \
    }

#define WRAP_OPEN(name, parameters, question, before) \
    int name parameters \
    { \
        REAL(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
        } \
        if (question) \
            return -1; \
        return real(before, flags, mode); \
    }

#define HERE AT_FDCWD
#define FIRST HERE, path
#define AT directory, path

WRAP_OPEN(open, (const char *path, int flags, ...), fails_at(OPEN, HERE, path), path)
WRAP_OPEN(open64, (const char *path, int flags, ...), fails_at(OPEN, HERE, path), path)

int openat(int directory, const char *path, int flags, ...)
{
    REAL(openat);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails_at(OPEN, AT) ? -1 : real(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    REAL(openat64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails_at(OPEN, AT) ? -1 : real(directory, path, flags, mode);
}

WRAP(FILE *, NULL, fopen, (const char *path, const char *how), (path, how), fails_at(OPEN, FIRST))
WRAP(FILE *, NULL, fopen64, (const char *path, const char *how), (path, how), fails_at(OPEN, FIRST))
WRAP(DIR *, NULL, opendir, (const char *path), (path), fails_at(OPEN, FIRST))

WRAP(ssize_t, -1, read, (int file, void *to, size_t size), (file, to, size), fails_open(READ, file))
WRAP(ssize_t, -1, pread, (int file, void *to, size_t size, off_t at), (file, to, size, at), fails_open(READ, file))
WRAP(ssize_t, -1, pread64, (int file, void *to, size_t size, off64_t at), (file, to, size, at), fails_open(READ, file))
WRAP(ssize_t, -1, readv, (int file, const struct iovec *to, int n), (file, to, n), fails_open(READ, file))

WRAP(ssize_t, -1, write, (int file, const void *from, size_t size), (file, from, size), fails_open(WRITE, file))
WRAP(ssize_t, -1, pwrite, (int file, const void *from, size_t size, off_t at), (file, from, size, at), fails_open(WRITE, file))
WRAP(ssize_t, -1, pwrite64, (int file, const void *from, size_t size, off64_t at), (file, from, size, at), fails_open(WRITE, file))
WRAP(ssize_t, -1, writev, (int file, const struct iovec *from, int n), (file, from, n), fails_open(WRITE, file))

WRAP(int, -1, fsync, (int file), (file), fails_open(SYNC, file))
WRAP(int, -1, fdatasync, (int file), (file), fails_open(SYNC, file))

WRAP(int, -1, rename, (const char *path, const char *to), (path, to), fails_at(RENAME, HERE, to))
WRAP(int, -1, renameat, (int from, const char *path, int directory, const char *to), (from, path, directory, to),
     fails_at(RENAME, directory, to))
WRAP(int, -1, link, (const char *path, const char *to), (path, to), fails_at(LINK, HERE, to))
WRAP(int, -1, linkat, (int from, const char *path, int directory, const char *to, int how), (from, path, directory, to, how),
     fails_at(LINK, directory, to))
WRAP(int, -1, unlink, (const char *path), (path), fails_at(UNLINK, FIRST))
WRAP(int, -1, unlinkat, (int directory, const char *path, int how), (directory, path, how), fails_at(UNLINK, AT))
WRAP(int, -1, rmdir, (const char *path), (path), fails_at(UNLINK, FIRST))

WRAP(int, -1, stat, (const char *path, struct stat *found), (path, found), fails_at(STAT, FIRST))
WRAP(int, -1, stat64, (const char *path, struct stat64 *found), (path, found), fails_at(STAT, FIRST))
WRAP(int, -1, lstat, (const char *path, struct stat *found), (path, found), fails_at(STAT, FIRST))
WRAP(int, -1, lstat64, (const char *path, struct stat64 *found), (path, found), fails_at(STAT, FIRST))
WRAP(int, -1, fstat, (int file, struct stat *found), (file, found), fails_open(STAT, file))
WRAP(int, -1, fstat64, (int file, struct stat64 *found), (file, found), fails_open(STAT, file))
WRAP(int, -1, fstatat, (int directory, const char *path, struct stat *found, int how), (directory, path, found, how),
     fails_at(STAT, AT))
WRAP(int, -1, fstatat64, (int directory, const char *path, struct stat64 *found, int how), (directory, path, found, how),
     fails_at(STAT, AT))
WRAP(int, -1, statx, (int directory, const char *path, int how, unsigned int what, struct statx *found),
     (directory, path, how, what, found), fails_at(STAT, AT))

WRAP(int, -1, truncate, (const char *path, off_t size), (path, size), fails_at(TRUNCATE, FIRST))
WRAP(int, -1, truncate64, (const char *path, off64_t size), (path, size), fails_at(TRUNCATE, FIRST))
WRAP(int, -1, ftruncate, (int file, off_t size), (file, size), fails_open(TRUNCATE, file))
WRAP(int, -1, ftruncate64, (int file, off64_t size), (file, size), fails_open(TRUNCATE, file))

WRAP(int, -1, mkdir, (const char *path, mode_t mode), (path, mode), fails_at(MKDIR, FIRST))
WRAP(int, -1, mkdirat, (int directory, const char *path, mode_t mode), (directory, path, mode), fails_at(MKDIR, AT))

WRAP(void *, MAP_FAILED, mmap, (void *where, size_t size, int what, int how, int file, off_t at),
     (where, size, what, how, file, at), fails_open(MMAP, file))
WRAP(void *, MAP_FAILED, mmap64, (void *where, size_t size, int what, int how, int file, off64_t at),
     (where, size, what, how, file, at), fails_open(MMAP, file))

int close(int file)
{
    REAL(close);
    int failed = fails_open(CLOSE, file), error = errno, closed = real(file);
    if (failed)
        errno = error;
    return failed ? -1 : closed;
}
