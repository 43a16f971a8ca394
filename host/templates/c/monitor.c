/*
 * A monitor for immortal: counts the lines of the program's stdout, and asks for a restart after a number of them.
 * immortal_monitor.h says what each function may do, on which thread, and who owns what.
 */
#include "immortal_monitor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct counter {
  const im_host *host;
  uint64_t limit; /* lines of one run after which a restart is asked for; 0: never */
  uint64_t lines; /* lines of this run */
} counter;

static im_str text(const char *chars) {
  im_str str;
  str.data = (const uint8_t *)chars;
  str.len = strlen(chars);
  return str;
}

static int equal(im_str str, const char *chars) {
  return str.len == strlen(chars) && memcmp(str.data, chars, str.len) == 0;
}

/* Reads a number without a sign. Returns 0 if it is none, and tells the host so. */
static int read_limit(const im_host *host, im_str value, uint64_t *limit) {
  size_t at;
  *limit = 0;
  for (at = 0; at < value.len && at < 18; at++) {
    if (value.data[at] < '0' || value.data[at] > '9') break;
    *limit = *limit * 10 + (uint64_t)(value.data[at] - '0');
  }
  if (value.len > 0 && at == value.len) return 1;
  host->fail(host->ctx, text("option limit: not a number of lines\nhint: 0 means never"));
  return 0;
}

/* Reads the options. The host has refused what is not declared below; values are for us to judge. */
static int read_options(const im_host *host, const im_opt *options, size_t count, uint64_t *limit) {
  size_t at;
  *limit = 0;
  for (at = 0; at < count; at++)
    if (equal(options[at].key, "limit") && !read_limit(host, options[at].value, limit)) return 0;
  return 1;
}

static int32_t check(const im_host *host, const im_opt *options, size_t count) {
  uint64_t limit;
  return read_options(host, options, count, &limit) ? IM_OK : IM_FAILED;
}

static void *create(const im_host *host, const im_opt *options, size_t count) {
  counter *self;
  uint64_t limit;
  if (!read_options(host, options, count, &limit)) return NULL;
  self = calloc(1, sizeof *self);
  if (!self) {
    host->fail(host->ctx, text("out of memory"));
    return NULL;
  }
  self->host = host;
  self->limit = limit;
  return self;
}

/* Bytes as one read returned them: they respect no line, and need not be text. */
static int32_t output(void *instance, const im_output *output) {
  counter *self = instance;
  size_t at;
  if (output->stream != IM_STDOUT) return IM_OK;
  for (at = 0; at < output->data.len; at++)
    if (output->data.data[at] == '\n' && ++self->lines == self->limit) self->host->restart(self->host->ctx);
  return IM_OK;
}

static int32_t event(void *instance, const im_event *event) {
  counter *self = instance;
  char lines[32];
  if (event->kind != IM_EVENT_EXIT) return IM_OK;
  snprintf(lines, sizeof lines, "%llu", (unsigned long long)self->lines);
  self->host->report(self->host->ctx, text("lines_of_last_run"), text(lines));
  self->host->log(self->host->ctx, 3, text("@NAME@"), text("the process died"));
  self->lines = 0;
  return IM_OK;
}

static void destroy(void *instance) { free(instance); }

static const im_option declared[] = {
    {"limit", "ask for a restart after this many lines; 0 for never", "0", NULL, 0, IM_OPTION_INTEGER, 0},
};
static const im_options options = {sizeof options, 0, declared, sizeof declared / sizeof *declared};

static const void *get_extension(const char *name) {
  return strcmp(name, IM_EXTENSION_OPTIONS) == 0 ? &options : NULL;
}

const im_monitor immortal_monitor_v1 = {
    IM_MAGIC,
    IM_ABI,
    sizeof(im_monitor),
    0,
    "@NAME@",
    "0.1.0",
    "Counts lines, and asks for a restart after a number of them",
    check,
    create,
    NULL, /* setup: always ready */
    output,
    event,
    NULL, /* idle */
    NULL, /* finish */
    destroy,
    get_extension,
    {NULL},
    {0},
};
