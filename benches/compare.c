/* The parts of `compare` that must be small and exact, in one program:
 *
 *   idle NOTES NAME                     notes its first instruction, then does nothing
 *   write NOTES NAME GATE TOTAL CHUNK   the same, then waits until GATE, a FIFO, is opened, and writes TOTAL bytes of
 *                                       lines of 100 bytes, CHUNK bytes at a time
 *   speak NOTES NAME GATE COUNT         the same, then COUNT lines `said at` with the time, 2 to 11 ms between them
 *   watch FILE COUNT                    waits for COUNT such lines in FILE; prints how many were more than 1 ms late, and
 *                                       the nanoseconds of the latest
 *   copy FILE                           a plain pump: copies its standard input to the end of FILE
 *   keep PROGRAM ARGUMENTS...           a plain supervisor: executes PROGRAM, waits for its end, and again
 *   time NOTES NAME COMMAND...          notes when COMMAND begins and when it returns
 *   count FILES...                      prints how many whole lines of `write` the files hold
 *
 * A note is a line of NOTES: NAME, WHAT, pid, nanoseconds of CLOCK_MONOTONIC. Called `run`, it takes its arguments from
 * the file `args` in the working directory, one a line: service directories have no other place for them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE 100

extern char **environ;

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(100);
}

static void note(const char *file, const char *name, const char *what, long long time) {
    char line[512];
    int length = snprintf(line, sizeof line, "%s %s %d %lld\n", name, what, (int)getpid(), time);
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    /* One write, so that lines of several processes do not mix. */
    if (fd < 0 || write(fd, line, length) != length) fail(file);
    close(fd);
}

static void write_all(int fd, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0) fail("write");
        bytes += written;
        length -= written;
    }
}

static void write_lines(const char *notes, const char *name, const char *gate, long long total, size_t chunk) {
    size_t length = LINE * chunk; /* a multiple of a line and of a chunk */
    char *block = malloc(length);
    if (!block) fail("malloc");
    memset(block, 'x', length);
    for (size_t at = LINE - 1; at < length; at += LINE) block[at] = '\n';
    if (open(gate, O_RDONLY) < 0) fail(gate);
    note(notes, name, "begin", now());
    for (size_t at = 0; total > 0; at = (at + chunk) % length) {
        size_t piece = total < (long long)chunk ? (size_t)total : chunk;
        write_all(1, block + at, piece);
        total -= piece;
    }
    note(notes, name, "end", now());
}

static void pause_ns(long ns) {
    struct timespec span = {0, ns};
    nanosleep(&span, NULL);
}

static void speak(const char *gate, long count) {
    if (open(gate, O_RDONLY) < 0) fail(gate);
    for (unsigned number = 7; count > 0; count--) {
        char line[64];
        number = number * 1103515245 + 12345;
        pause_ns(2000000 + (number >> 8) % 9000000);
        write_all(1, line, sprintf(line, "said at %lld\n", now()));
    }
}

/* A line is as late as the last look that did not find it: looks may be late, too. */
static int watch(const char *file, long count) {
    static char text[1 << 20];
    size_t length = 0;
    char *next = text, *end, *said;
    long long latest = 0, missed = now();
    long many = 0;
    int fd = open(file, O_RDONLY);
    if (fd < 0) fail(file);
    while (count > 0) {
        long long look = now();
        ssize_t more = read(fd, text + length, sizeof text - 1 - length);
        if (more < 0) fail(file);
        if (length + more == sizeof text - 1) {
            fprintf(stderr, "%s is too long\n", file);
            return 100;
        }
        text[length += more] = 0;
        for (; (end = strchr(next, '\n')) != NULL; next = end + 1) {
            *end = 0;
            if ((said = strstr(next, "said at ")) == NULL) continue;
            long long late = missed - atoll(said + strlen("said at "));
            if (late > latest) latest = late;
            many += late > 1000000;
            count--;
        }
        missed = look;
        pause_ns(30000);
    }
    return printf("%ld %lld\n", many, latest) < 0;
}

static int copy(const char *file) {
    static char buffer[65536];
    ssize_t count;
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (fd < 0) fail(file);
    while ((count = read(0, buffer, sizeof buffer)) > 0) write_all(fd, buffer, count);
    return count < 0;
}

static pid_t spawn(char **command) {
    pid_t pid;
    if (posix_spawnp(&pid, command[0], NULL, NULL, command, environ) != 0) fail(command[0]);
    return pid;
}

static int time_command(const char *notes, const char *name, char **command) {
    int status;
    long long begin = now();
    pid_t pid = spawn(command);
    note(notes, name, "called", begin);
    if (waitpid(pid, &status, 0) < 0) fail("waitpid");
    long long end = now();
    note(notes, name, status == 0 ? "returned" : "failed", end);
    return 0;
}

static long long whole_lines(const char *file) {
    char line[LINE];
    struct stat stat;
    long long count = 0;
    int fd = open(file, O_RDONLY);
    if (fd < 0 || fstat(fd, &stat) < 0) fail(file);
    if (stat.st_size == 0) return 0;
    char *begin = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0), *end = begin + stat.st_size, *newline;
    if (begin == MAP_FAILED) fail(file);
    memset(line, 'x', LINE - 1);
    line[LINE - 1] = '\n';
    for (char *at = begin; (newline = memchr(at, '\n', end - at)) != NULL; at = newline + 1)
        /* There may be a time stamp before it, and it has no x. */
        count += newline + 1 - at >= LINE && memcmp(newline + 1 - LINE, line, LINE) == 0;
    munmap(begin, stat.st_size);
    close(fd);
    return count;
}

static int run(int count, char **words, long long began) {
    if (count >= 3 && strcmp(words[0], "idle") == 0) {
        note(words[1], words[2], "up", began);
        for (;;) pause();
    }
    if (count >= 6 && strcmp(words[0], "write") == 0) {
        note(words[1], words[2], "up", began);
        write_lines(words[1], words[2], words[3], atoll(words[4]), atoll(words[5]));
        for (;;) pause();
    }
    if (count >= 5 && strcmp(words[0], "speak") == 0) {
        note(words[1], words[2], "up", began);
        speak(words[3], atol(words[4]));
        for (;;) pause();
    }
    if (count >= 3 && strcmp(words[0], "watch") == 0) return watch(words[1], atol(words[2]));
    if (count >= 2 && strcmp(words[0], "copy") == 0) return copy(words[1]);
    if (count >= 2 && strcmp(words[0], "keep") == 0)
        for (;;)
            if (waitpid(spawn(words + 1), NULL, 0) < 0) fail("waitpid");
    if (count >= 4 && strcmp(words[0], "time") == 0) return time_command(words[1], words[2], words + 3);
    if (count >= 2 && strcmp(words[0], "count") == 0) {
        long long lines = 0;
        for (int i = 1; i < count; i++) lines += whole_lines(words[i]);
        return printf("%lld\n", lines) < 0;
    }
    fprintf(stderr, "see the top of compare.c\n");
    return 2;
}

int main(int count, char **words) {
    static char text[8192], *read_words[64];
    long long began = now();
    const char *name = strrchr(words[0], '/');
    if (strcmp(name ? name + 1 : words[0], "run") != 0) return run(count - 1, words + 1, began);
    int fd = open("args", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0) fail("args");
    close(fd);
    count = 0;
    for (char *word = strtok(text, "\n"); word && count < 63; word = strtok(NULL, "\n")) read_words[count++] = word;
    return run(count, read_words, began);
}
