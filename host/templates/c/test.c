/* Drives the monitor through its table, as the pump does, with a host that counts what is asked of it. */
#include "immortal_monitor.h"

#include <stdio.h>
#include <string.h>

static int restarts, failures;

static void on_log(void *ctx, uint32_t level, im_str target, im_str line) {
  (void)ctx, (void)level, (void)target, (void)line;
}
static void on_fail(void *ctx, im_str why) { (void)ctx, (void)why, failures++; }
static uint32_t on_restart(void *ctx) { return (void)ctx, restarts++, 1; }
static void on_report(void *ctx, im_str key, im_str value) { (void)ctx, (void)key, (void)value; }

static im_str text(const char *chars) {
  im_str str;
  str.data = (const uint8_t *)chars;
  str.len = strlen(chars);
  return str;
}

static int32_t write_stdout(void *monitor, const char *chars) {
  im_output output;
  memset(&output, 0, sizeof output);
  output.size = sizeof output;
  output.stream = IM_STDOUT;
  output.data = text(chars);
  return immortal_monitor_v1.output(monitor, &output);
}

#define EXPECT(fact) \
  if (!(fact)) return fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #fact), 1

int main(void) {
  im_host host;
  im_opt limit;
  void *monitor;
  memset(&host, 0, sizeof host);
  host.abi = IM_ABI;
  host.size = sizeof host;
  host.log = on_log;
  host.fail = on_fail;
  host.restart = on_restart;
  host.report = on_report;
  memset(&limit, 0, sizeof limit);
  limit.key = text("limit");

  limit.value = text("many");
  EXPECT(immortal_monitor_v1.check(&host, &limit, 1) == IM_FAILED && failures == 1);
  limit.value = text("2");
  EXPECT(immortal_monitor_v1.check(&host, &limit, 1) == IM_OK);

  monitor = immortal_monitor_v1.create(&host, &limit, 1);
  EXPECT(monitor != NULL);
  EXPECT(write_stdout(monitor, "one\ntw") == IM_OK && restarts == 0);
  EXPECT(write_stdout(monitor, "o\nthree\n") == IM_OK && restarts == 1);
  immortal_monitor_v1.destroy(monitor);
  return 0;
}
