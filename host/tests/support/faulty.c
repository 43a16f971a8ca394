/* A monitor that counts lines as it should, and, with one of the definitions below, does one thing wrong. */
#include "immortal_monitor.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  const im_host *host;
  unsigned long lines, bytes;
  long max;
  int turns;
  const uint8_t *kept;
  pthread_t thread;
  volatile int stop;
} self_t;

static im_str str(const char *text) {
  im_str s = {(const uint8_t *)text, strlen(text)};
  return s;
}

static int is(im_str s, const char *text) { return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0; }

static int32_t fail(const im_host *host, const char *text) {
  host->fail(host->ctx, str(text));
  return IM_FAILED;
}

/* 0 if the text is a number, which goes to *number. */
static int read_number(const im_opt *option, long *number) {
  char text[24], *end;
  if (option->value.len == 0 || option->value.len >= sizeof text) return -1;
  memcpy(text, option->value.data, option->value.len);
  text[option->value.len] = 0;
  *number = strtol(text, &end, 10);
  return *end || end == text ? -1 : 0;
}

static int32_t read_options(const im_host *host, const im_opt *options, size_t count, long *max) {
  *max = 1000000000;
  for (size_t i = 0; i < count; i++) {
    if (!is(options[i].key, "max")) return fail(host, "an option that is not mine");
#ifndef ACCEPT_ANYTHING
    if (read_number(&options[i], max)) return fail(host, "option max: not an integer");
#endif
#ifdef REFUSE_DEFAULT
    if (is(options[i].value, "1000000000")) return fail(host, "option max: too large");
#endif
  }
  return IM_OK;
}

static int32_t check(const im_host *host, const im_opt *options, size_t count) {
  long max;
  return read_options(host, options, count, &max);
}

#if defined THREAD_ALIVE || defined READY_LATER
static void *work(void *argument) {
  self_t *self = argument;
#ifdef READY_LATER
  usleep(20000);
  self->host->ready(self->host->ctx);
#endif
  while (!self->stop) usleep(1000);
  return NULL;
}
#endif

#ifdef CTOR_HANDLER
static void handler(int signal) { (void)signal; }
#endif

__attribute__((constructor)) static void constructor(void) {
#ifdef CTOR_HANDLER
  signal(CTOR_HANDLER, handler);
#endif
#ifdef CTOR_CRASH
  *(volatile int *)0 = 1;
#endif
}

static int instances;

static void *create(const im_host *host, const im_opt *options, size_t count) {
  self_t *self = calloc(1, sizeof *self);
  self->host = host;
  if (read_options(host, options, count, &self->max) != IM_OK) {
    free(self);
    return NULL;
  }
  instances++;
#ifdef ONE_INSTANCE
  if (instances > 1) return fail(host, "there is one of me already"), NULL;
#endif
#ifdef LEAK_DESCRIPTOR
  if (open("/dev/null", O_RDONLY) < 0) return fail(host, "cannot open /dev/null"), NULL;
#endif
#ifdef CHANGE_SIGTERM
  signal(SIGTERM, SIG_IGN);
#endif
#ifdef UNBLOCK_SIGNALS
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
#endif
#ifdef KEEP_OPTIONS
  self->kept = count ? options[0].value.data : NULL;
#endif
#if defined THREAD_ALIVE || defined READY_LATER
  pthread_create(&self->thread, NULL, work, self);
#endif
  return self;
}

static int32_t setup(void *instance, const im_setup *setup) {
  self_t *self = instance;
#ifdef KEEP_OPTIONS
  if (self->kept && *(volatile const uint8_t *)self->kept == 'x') return fail(self->host, "x");
#endif
#ifdef ABORT_ON_MESSAGE
  if (setup->message.len) abort();
#endif
#ifdef FAIL_ON_MESSAGE
  if (setup->message.len > 1000) return fail(self->host, "the message is too long");
#endif
  if (setup->why != IM_WHY_PUMP_START) self->lines = 0;
#ifdef NEVER_READY
  return IM_PENDING;
#elif defined READY_LATER
  return IM_PENDING;
#else
  return IM_OK;
#endif
}

static int32_t output(void *instance, const im_output *output) {
  self_t *self = instance;
#ifdef KEEP_DATA
  if (self->kept && *(volatile const uint8_t *)self->kept == 1) self->bytes++;
  if (output->data.len) self->kept = output->data.data;
#endif
#ifdef OVERREAD
  if (output->data.len) self->bytes += strlen((const char *)output->data.data);
#endif
#ifdef CRASH_ON_NUL
  if (output->data.len && memchr(output->data.data, 0, output->data.len)) *(volatile int *)0 = 1;
#endif
#ifdef EMPTY_IS_WRONG
  if (!output->data.len) return fail(self->host, "no bytes");
#endif
#ifdef FIXED_BUFFER
  if (output->data.len > 65536) return fail(self->host, "a chunk too long for my buffer");
#endif
#ifdef CRASH_AFTER_DEATH
  if (self->turns % 2 == 1 && output->stream == IM_STDERR) abort();
#endif
#ifdef SLOW_CHUNK
  usleep(3000);
#endif
  if (output->stream != IM_STDOUT) return IM_OK;
  for (size_t i = 0; i < output->data.len; i++) self->lines += output->data.data[i] == '\n';
#ifdef COUNT_CHUNKS
  if (output->data.len && output->data.data[output->data.len - 1] != '\n') self->lines++;
#endif
  self->bytes += output->data.len;
  if (self->lines > (unsigned long)self->max) self->host->restart(self->host->ctx);
  return IM_OK;
}

static int32_t event(void *instance, const im_event *event) {
  self_t *self = instance;
#ifdef NO_OTHER_EVENTS
  if (event->kind > IM_EVENT_EXIT) return fail(self->host, "no such event");
#endif
  if (event->kind != IM_EVENT_EXIT) {
    self->turns = 0;
    return IM_OK;
  }
  self->turns++;
#ifdef HANG_IN_EXIT
  for (;;) pause();
#endif
#ifdef CALL_EXIT
  exit(0);
#endif
#ifdef WRITE_STDOUT
  printf("the process has died\n");
#endif
#ifdef WRITE_STDERR
  fprintf(stderr, "the process has died\n");
#endif
#ifdef SLOW_EXIT
  usleep(150000);
#endif
#ifdef CRASH_ON_SIGNAL
  const char *names[] = {"HUP", "INT", "QUIT", "ILL"};
  if (event->signal > 4) abort();
  if (event->signal > 0) (void)names[event->signal - 1];
#endif
  return IM_OK;
}

static int32_t finish(void *instance, uint64_t deadline_ns) {
  self_t *self = instance;
  char text[32];
  (void)deadline_ns;
  snprintf(text, sizeof text, "%lu", self->lines);
  self->host->report(self->host->ctx, str("lines"), str(text));
#ifdef LATE_FINISH
  usleep(2200000);
#endif
  return IM_OK;
}

static void destroy(void *instance) {
  self_t *self = instance;
  instances--;
#ifdef READY_LATER
  self->stop = 1;
  pthread_join(self->thread, NULL);
#endif
#if !defined FORGET_DESTROY && !defined THREAD_ALIVE
  free(self);
#endif
}

#ifndef DEFAULT
#define DEFAULT "1000000000"
#endif
static const im_option declared[] = {
    {"max", "ask for a restart after so many lines", DEFAULT, NULL, 0, IM_OPTION_INTEGER, 0},
#ifdef TWICE
    {"max", "once more", NULL, NULL, 0, IM_OPTION_INTEGER, 0},
#endif
#ifdef NO_CHOICES
    {"mode", "how", NULL, NULL, 0, IM_OPTION_CHOICE, 0},
#endif
};
static const im_options options = {sizeof options, 0, declared, sizeof declared / sizeof *declared};

static const void *get_extension(const char *name) {
  return strcmp(name, IM_EXTENSION_OPTIONS) == 0 ? &options : NULL;
}

const im_monitor immortal_monitor_v1 = {
    .magic = IM_MAGIC,
    .abi = IM_ABI,
    .size = sizeof(im_monitor),
    .name = "faulty",
#ifndef NO_VERSION
    .version = "1.0",
#endif
    .about = "counts lines, and does one thing wrong",
    .check = check,
    .create = create,
    .setup = setup,
    .output = output,
    .event = event,
    .finish = finish,
    .destroy = destroy,
    .get_extension = get_extension,
#ifdef RESERVED
    .reserved_numbers = {1},
#endif
};
