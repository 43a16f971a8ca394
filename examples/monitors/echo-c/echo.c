/*
 * Echoes every line that the program writes to immortal's own log, at level info (start the group with -v).
 * A complete monitor in C: options, both streams, an event, no thread of its own.
 */
#include "immortal_monitor.h"

#include <stdlib.h>
#include <string.h>

/* A longer line is cut into pieces of this length. */
#define LINE 512

typedef struct line {
  size_t length;
  char bytes[LINE];
} line;

typedef struct echo {
  const im_host *host;
  int is_stderr_only;
  line lines[2]; /* what has come of the last line of stdout and of stderr */
} echo;

static im_str text(const char *chars) {
  im_str str;
  str.data = (const uint8_t *)chars;
  str.len = strlen(chars);
  return str;
}

static int equal(im_str str, const char *chars) {
  return str.len == strlen(chars) && memcmp(str.data, chars, str.len) == 0;
}

/* The host has refused options that are not declared; it leaves their values to us. */
static int read_options(const im_host *host, const im_opt *options, size_t count, int *is_stderr_only) {
  size_t at;
  *is_stderr_only = 0;
  for (at = 0; at < count; at++) {
    if (!equal(options[at].key, "stream")) continue;
    if (equal(options[at].value, "stderr")) {
      *is_stderr_only = 1;
    } else if (!equal(options[at].value, "both")) {
      host->fail(host->ctx, text("option stream: neither both nor stderr"));
      return 0;
    }
  }
  return 1;
}

static int32_t check(const im_host *host, const im_opt *options, size_t count) {
  int is_stderr_only;
  return read_options(host, options, count, &is_stderr_only) ? IM_OK : IM_FAILED;
}

static void *create(const im_host *host, const im_opt *options, size_t count) {
  int is_stderr_only;
  echo *self;
  if (!read_options(host, options, count, &is_stderr_only)) return NULL;
  self = calloc(1, sizeof *self);
  if (!self) {
    host->fail(host->ctx, text("out of memory"));
    return NULL;
  }
  self->host = host;
  self->is_stderr_only = is_stderr_only;
  return self;
}

static void say(echo *self, int which) {
  im_str bytes;
  bytes.data = (const uint8_t *)self->lines[which].bytes;
  bytes.len = self->lines[which].length;
  self->host->log(self->host->ctx, 3, text(which ? "stderr" : "stdout"), bytes);
  self->lines[which].length = 0;
}

/* A chunk may begin and end anywhere, so what has no newline yet is kept: copied, for it is lent for the call. */
static int32_t output(void *instance, const im_output *output) {
  echo *self = instance;
  const uint8_t *at = output->data.data, *end = at + output->data.len;
  int which = output->stream == IM_STDERR;
  if (output->stream != IM_STDOUT && output->stream != IM_STDERR) return IM_OK;
  if (self->host->max_log_level < 3 || (self->is_stderr_only && !which)) return IM_OK;
  for (; at < end; at++) {
    line *line = &self->lines[which];
    if (*at == '\n') {
      say(self, which);
      continue;
    }
    if (line->length == LINE) say(self, which);
    line->bytes[line->length++] = (char)*at;
  }
  return IM_OK;
}

/* The program is dead: what it left without a newline is a line as well. */
static int32_t event(void *instance, const im_event *event) {
  echo *self = instance;
  int which;
  if (event->kind != IM_EVENT_EXIT) return IM_OK;
  for (which = 0; which < 2; which++)
    if (self->lines[which].length) say(self, which);
  return IM_OK;
}

static void destroy(void *instance) { free(instance); }

static const char *const streams[] = {"both", "stderr"};
static const im_option declared[] = {
    {"stream", "what is echoed", "both", streams, 2, IM_OPTION_CHOICE, 0},
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
    "echo",
    "1.0.0",
    "Echoes every line to immortal's own log",
    check,
    create,
    NULL,
    output,
    event,
    NULL,
    NULL,
    destroy,
    get_extension,
    {NULL},
    {0},
};
