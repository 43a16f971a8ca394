/* What Go cannot write: the table, and calls of function pointers. The functions are those of tally.go. */
#include "immortal_monitor.h"

#include <string.h>

extern int32_t tally_check(const im_host *host, const im_opt *options, size_t count);
extern void *tally_create(const im_host *host, const im_opt *options, size_t count);
extern int32_t tally_output(void *instance, const im_output *output);
extern int32_t tally_event(void *instance, const im_event *event);
extern void tally_destroy(void *instance);

void host_fail(const im_host *host, const char *text, size_t length) {
  im_str str = {(const uint8_t *)text, length};
  host->fail(host->ctx, str);
}

void host_report(const im_host *host, const char *key, size_t key_length, const char *value, size_t length) {
  im_str key_str = {(const uint8_t *)key, key_length}, value_str = {(const uint8_t *)value, length};
  host->report(host->ctx, key_str, value_str);
}

static const char *const units[] = {"bytes", "lines"};
static const im_option declared[] = {
    {"unit", "what is counted", "lines", units, 2, IM_OPTION_CHOICE, 0},
};
static const im_options options = {sizeof options, 0, declared, 1};

static const void *get_extension(const char *name) {
  return strcmp(name, IM_EXTENSION_OPTIONS) == 0 ? &options : NULL;
}

const im_monitor immortal_monitor_v1 = {
    .magic = IM_MAGIC,
    .abi = IM_ABI,
    .size = sizeof(im_monitor),
    .name = "tally",
    .version = "1.0.0",
    .about = "Reports how much was written to each stream",
    .check = tally_check,
    .create = tally_create,
    .output = tally_output,
    .event = tally_event,
    .destroy = tally_destroy,
    .get_extension = get_extension,
};
