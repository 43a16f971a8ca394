/* A monitor in C that does as its options say, and libraries that are wrong in one way each. */
#ifdef FUNCTION
#define immortal_monitor_v1 declared_as_a_table
#endif
#include "immortal_monitor.h"
#undef immortal_monitor_v1
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static im_str str(const char *text) {
  im_str s = {(const uint8_t *)text, strlen(text)};
  return s;
}

static int is(im_str s, const char *text) {
  return s.len == strlen(text) && memcmp(s.data, text, s.len) == 0;
}

/* What happens while the library is loaded. */
__attribute__((constructor)) static void constructor(void) {
#if defined CTOR_SEGV
  *(volatile int *)0 = 1;
#elif defined CTOR_ABORT
  fputs("first line\nthe last words\n", stderr);
  abort();
#elif defined CTOR_LOOP
  for (;;) usleep(1000);
#elif defined CTOR_EXIT
  exit(CTOR_EXIT);
#elif defined CTOR_FORK
  if (fork() == 0) for (;;) pause();
  _exit(0);
#elif defined CTOR_CLOSE
  for (int fd = 0; fd < 1024; fd++) close(fd);
  for (;;) pause();
#elif defined CTOR_FLOOD
  for (;;) fputs("a line of many\n", stderr);
#elif defined CTOR_SIGNALS
  signal(SIGTERM, SIG_IGN);
#endif
}

#ifdef UNRESOLVED
extern int a_function_that_is_nowhere(void);
int use(void) { return a_function_that_is_nowhere(); }
#endif

typedef struct {
  const im_host *host;
  char fail[32];  /* the hook that fails */
  char text[256]; /* what it says */
  int code;
} self_t;

static void copy(char *to, size_t size, im_str from) {
  size_t n = from.len < size - 1 ? from.len : size - 1;
  memcpy(to, from.data, n);
  to[n] = 0;
}

static void say(const im_host *host, const char *key, const char *value) {
  host->report(host->ctx, str(key), str(value));
}

static int32_t act(self_t *self, const char *hook) {
  say(self->host, "hook", hook);
  if (strcmp(self->fail, hook) != 0) return IM_OK;
  if (self->text[0]) self->host->fail(self->host->ctx, str(self->text));
  return self->code;
}

static void read_options(self_t *self, const im_host *host, const im_opt *options, size_t count) {
  memset(self, 0, sizeof *self);
  self->host = host;
  self->code = IM_FAILED;
  for (size_t i = 0; i < count; i++) {
    char number[32];
    if (is(options[i].key, "fail")) copy(self->fail, sizeof self->fail, options[i].value);
    if (is(options[i].key, "text")) copy(self->text, sizeof self->text, options[i].value);
    if (is(options[i].key, "code")) {
      copy(number, sizeof number, options[i].value);
      self->code = atoi(number);
    }
  }
}

static void write_all(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  if (!file) return;
  fputs(text, file);
  fclose(file);
}

/* What the helper process looks like from within, as a text. */
static void describe_process(char *text, size_t size) {
  char fds[64] = "";
  for (int fd = 0; fd < 90; fd++)
    if (lseek(fd, 0, SEEK_CUR) != -1 || write(fd, "", 0) == 0 || getpgid(0) < 0) {
      char one[8];
      snprintf(one, sizeof one, "%d ", fd);
      strncat(fds, one, sizeof fds - strlen(fds) - 1);
    }
  struct rlimit core;
  getrlimit(RLIMIT_CORE, &core);
  struct sigaction segv;
  sigaction(SIGSEGV, NULL, &segv);
  snprintf(text, size, "fds %s; core %d; leader %d; segv %s", fds, (int)core.rlim_cur, getpgid(0) == getpid(),
           segv.sa_handler == SIG_DFL ? "default" : "handled");
}

static int32_t check(const im_host *host, const im_opt *options, size_t count) {
  self_t self;
  read_options(&self, host, options, count);
  for (size_t i = 0; i < count; i++) {
    if (is(options[i].key, "process")) {
      char path[4096], text[512];
      copy(path, sizeof path, options[i].value);
      describe_process(text, sizeof text);
      write_all(path, text);
    }
    if (is(options[i].key, "log")) host->log(host->ctx, 2, str("here"), options[i].value);
  }
  if (strcmp(self.fail, "check") != 0) return IM_OK;
  if (is(str(self.text), "segv")) *(volatile int *)0 = 1;
  if (is(str(self.text), "exit")) exit(0);
  if (is(str(self.text), "name")) {
    host->fail(host->ctx, host->get(host->ctx, str("name")));
    return IM_FAILED;
  }
  if (self.text[0]) host->fail(host->ctx, str(self.text));
  return self.code;
}

static void *create(const im_host *host, const im_opt *options, size_t count) {
  self_t *self = malloc(sizeof *self);
  read_options(self, host, options, count);
  if (act(self, "create") != IM_OK) return NULL;
  return self;
}

static void *on_a_thread(void *self) {
  const im_host *host = ((self_t *)self)->host;
  host->fail(host->ctx, str("a thread has failed"));
  return NULL;
}

static int32_t setup(void *self, const im_setup *setup) {
  char text[512];
  int32_t code = act(self, "setup");
  if (code != IM_OK) return code;
  snprintf(text, sizeof text, "why %u flags %u pid %d cut %llu from %llu %llu: %.*s", (unsigned)setup->why,
           (unsigned)setup->flags, (int)setup->process_pid, (unsigned long long)setup->cut_bytes,
           (unsigned long long)setup->first_offset[0], (unsigned long long)setup->first_offset[1],
           (int)setup->message.len, (const char *)setup->message.data);
  say(((self_t *)self)->host, "setup", text);
  return strcmp(((self_t *)self)->fail, "pending") == 0 ? IM_PENDING : IM_OK;
}

static int32_t output(void *self, const im_output *output) {
  char text[512];
  const im_host *host = ((self_t *)self)->host;
  int32_t code = act(self, output->stream == IM_STDOUT ? "stdout" : "stderr");
  if (code != IM_OK) return code;
  if (strcmp(((self_t *)self)->fail, "quietly") == 0) host->fail(host->ctx, str("and goes on"));
  if (strcmp(((self_t *)self)->fail, "thread") == 0) {
    pthread_t thread;
    pthread_create(&thread, NULL, on_a_thread, self);
    pthread_join(thread, NULL);
  }
  snprintf(text, sizeof text, "%u %u %llu %.*s", (unsigned)output->stream, (unsigned)output->flags,
           (unsigned long long)output->offset, (int)output->data.len, (const char *)output->data.data);
  say(host, "output", text);
  return IM_OK;
}

static int32_t event(void *self, const im_event *event) {
  static const char *const names[] = {"", "spawn", "respawn", "exit"};
  char text[512];
  int32_t code = act(self, names[event->kind]);
  if (code != IM_OK) return code;
  snprintf(text, sizeof text, "%u %d %d %d %u %u", (unsigned)event->kind, (int)event->pid, (int)event->code,
           (int)event->signal, (unsigned)event->count, (unsigned)event->flags);
  say(((self_t *)self)->host, "event", text);
  return IM_OK;
}

static int32_t idle(void *self) { return act(self, "idle"); }

static int32_t finish(void *self, uint64_t deadline_ns) {
  (void)deadline_ns;
  return act(self, "finish");
}

static void destroy(void *self) {
  act(self, "destroy");
  free(self);
}

static const char *const choices[] = {"a", "b"};
static const im_option declared[] = {
    {"fail", "the hook that fails", NULL, NULL, 0, IM_OPTION_STRING, 0},
    {"text", "what it says", "nothing", NULL, 0, IM_OPTION_STRING, IM_OPTION_SECRET},
    {"code", "what it returns", NULL, NULL, 0, IM_OPTION_INTEGER, IM_OPTION_NULLABLE},
    {"process", "where the helper describes itself", NULL, NULL, 0, IM_OPTION_PATH, 0},
    {"log", "what is logged", NULL, choices, 2, IM_OPTION_CHOICE, IM_OPTION_REQUIRED},
};
static const im_options table = {sizeof table, 0, declared, sizeof declared / sizeof *declared};

static const void *get_extension(const char *name) {
#ifdef UNDECLARED
  return (void)name, (void)table, (const void *)0;
#else
  return strcmp(name, IM_EXTENSION_OPTIONS) == 0 ? &table : NULL;
#endif
}

#ifndef MAGIC
#define MAGIC IM_MAGIC
#endif
#ifndef ABI
#define ABI IM_ABI
#endif
#ifndef SIZE
#define SIZE sizeof(im_monitor)
#endif
#ifdef NO_CREATE
#define CREATE 0
#else
#define CREATE create
#endif
#ifdef NO_ENTRY
#define immortal_monitor_v1 another_name
#endif

#ifdef FUNCTION
IM_EXPORT int immortal_monitor_v1(void) { return create != 0; }
#else
IM_EXPORT const im_monitor immortal_monitor_v1 = {
    .magic = MAGIC,
    .abi = ABI,
    .size = SIZE,
    .name = "puppet",
    .version = "0.1",
    .about = "does as it is told",
    .check = check,
    .create = CREATE,
    .setup = setup,
    .output = output,
    .event = event,
    .idle = idle,
    .finish = finish,
    .destroy = destroy,
    .get_extension = get_extension,
};
#endif
