/*
 * immortal_monitor.h - the boundary between immortal and its monitors, version 1
 *
 * A monitor is a shared library (.so, .dylib) that exports one data symbol:
 *
 *     const im_monitor immortal_monitor_v1 = { IM_MAGIC, IM_ABI, sizeof(im_monitor), ... };
 *
 * It is declared at the end of this file, with C linkage and exported even with -fvisibility=hidden. Everything else that
 * crosses the boundary is in this file too; it needs C99 or C++11.
 *
 * Life of a monitor
 *   check    in a short-lived helper process, before anything is started
 *   create   in the pump, the process that keeps the user's program alive
 *   setup    the program, here called the process, is spawned when every monitor is ready
 *   output, event, idle   any number of times
 *   finish   then destroy; both only when the group ends in order
 *
 * Threads     All calls on one instance are serial, on one thread, and never re-entrant. The functions of
 *             im_host may be called from any thread, inside hooks and outside; none of them blocks.
 * Ownership   Whatever an argument points at is borrowed until the call returns. Allocation never crosses:
 *             each side frees what it made. im_host and what its `get` and `at` return live for ever.
 * Texts       A pointer and a length, neither UTF-8 nor NUL-terminated for certain. Where a NUL-terminated
 *             UTF-8 text is meant it is a `const char *`.
 * Errors      A hook that fails says why with `fail` of im_host and returns IM_FAILED. That ends the pump, and
 *             its successor's monitors get the text as message. A hook must not throw or longjmp past its end.
 *             A second line `hint: ...` of the text says what a user can do.
 * Growth      These structures are frozen. New things come as extensions looked up by name. Numbers that
 *             stand for kinds may get new values: ignore those you do not know.
 * Libraries are never unloaded. A monitor leaves the disposition of signals alone.
 */
#ifndef IMMORTAL_MONITOR_H
#define IMMORTAL_MONITOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Exports what it is put before, even with -fvisibility=hidden. */
#if defined(__GNUC__) || defined(__clang__)
#define IM_EXPORT __attribute__((visibility("default")))
#else
#define IM_EXPORT
#endif

/* ---- numbers ------------------------------------------------------------------------------------------ */

#define IM_MAGIC UINT32_C(0x4f4d4d49) /* the number whose bytes are "IMMO", low byte first */
#define IM_ABI UINT32_C(1)

/* What hooks return. */
#define IM_OK 0          /* done; from setup: ready */
#define IM_PENDING 1     /* from setup alone: not ready yet, `ready` of im_host will be called */
#define IM_FAILED (-1)   /* failed, and `fail` of im_host was told why */
#define IM_PANICKED (-2) /* the same for a panic or an exception that was caught; no hook is called again */

/* im_setup.why; treat what you do not know as a restart. */
#define IM_WHY_PUMP_START UINT32_C(1)     /* the group was started */
#define IM_WHY_PUMP_RESTART UINT32_C(2)   /* the pump died; the message is its stderr */
#define IM_WHY_DAEMON_RESTART UINT32_C(3) /* the daemon died */
#define IM_WHY_RELOAD UINT32_C(4)         /* the monitors were reloaded; nothing died */

/* Streams. */
#define IM_STDOUT UINT32_C(1)
#define IM_STDERR UINT32_C(2)

/* im_event.kind; ignore what you do not know. */
#define IM_EVENT_SPAWN UINT32_C(1)   /* the process started for the first time; before its first byte */
#define IM_EVENT_RESPAWN UINT32_C(2) /* it was started again; before its first byte */
#define IM_EVENT_EXIT UINT32_C(3)    /* it died; after its last byte */

/* Flags of im_setup, im_event and im_output. */
#define IM_FLAG_KEPT (UINT32_C(1) << 0)        /* setup, event: the process was kept running, it is not new */
#define IM_FLAG_CORE (UINT32_C(1) << 1)        /* event: the process left a core dump */
#define IM_FLAG_REDELIVERED (UINT32_C(1) << 2) /* output: an earlier pump may have delivered this already */

/* im_opt.kind. */
#define IM_OPT_TEXT UINT32_C(0) /* text as typed */
#define IM_OPT_JSON UINT32_C(1) /* one JSON value: null, a number, a quoted string, ... */

/* im_monitor.flags. */
#define IM_MONITOR_PANIC_ABORT (UINT32_C(1) << 0) /* a panic ends the pump without its text */

/* Name of the extension by which a monitor declares its options: a const im_options. */
#define IM_EXTENSION_OPTIONS "immortal.options/1"

/* Name of the extension by which a host tells of the last crash: a const im_crash. */
#define IM_EXTENSION_CRASH "immortal.crash/1"

/* im_crash.role; accept what you do not know. */
#define IM_ROLE_PUMP UINT32_C(1)   /* hosts the monitors */
#define IM_ROLE_DAEMON UINT32_C(2) /* keeps the pump alive */

/* im_crash.flags. */
#define IM_CRASH_BY_HOOK (UINT32_C(1) << 0) /* the hook in progress caused it; nobody killed it from outside */

/* im_option.kind; a host treats what it does not know as a string. */
#define IM_OPTION_STRING UINT32_C(1)   /* any text */
#define IM_OPTION_PATH UINT32_C(2)     /* made absolute against the caller's directory by the host */
#define IM_OPTION_INTEGER UINT32_C(3)  /* signed, 64 bits, decimal */
#define IM_OPTION_BOOLEAN UINT32_C(4)  /* true or false */
#define IM_OPTION_SIZE UINT32_C(5)     /* bytes, such as 10MiB */
#define IM_OPTION_DURATION UINT32_C(6) /* a span of time, such as 500ms */
#define IM_OPTION_CHOICE UINT32_C(7)   /* one of `choices` */

/* im_option.flags. */
#define IM_OPTION_REQUIRED (UINT32_C(1) << 0) /* must be given */
#define IM_OPTION_NULLABLE (UINT32_C(1) << 1) /* KEY:=null is accepted and means "none" */
#define IM_OPTION_SECRET (UINT32_C(1) << 2)   /* the value is never shown */

/* ---- what is passed ----------------------------------------------------------------------------------- */

/* Bytes. `data` may be null where `len` is 0. */
typedef struct im_str {
  const uint8_t *data;
  size_t len;
} im_str;

/* One option as given by the user; the host has read KEY=@FILE and made paths absolute. */
typedef struct im_opt {
  im_str key;
  im_str value;
  uint32_t kind;  /* IM_OPT_* */
  uint32_t flags; /* 0 */
} im_opt;

/* Argument of setup. */
typedef struct im_setup {
  uint32_t size;            /* sizeof(im_setup), or more from a newer host */
  uint32_t why;             /* IM_WHY_* */
  uint32_t flags;           /* IM_FLAG_KEPT */
  int32_t process_pid;      /* the process, if it was kept; else 0 */
  im_str message;           /* stderr of the dead pump, newest part; empty where there is none */
  uint64_t cut_bytes;       /* bytes of that stderr missing before `message` */
  uint64_t first_offset[2]; /* offset of the first byte to be delivered, of stdout and of stderr */
} im_setup;

/* Argument of output: bytes of one stream, what one read returned; it respects no line. */
typedef struct im_output {
  uint32_t size;
  uint32_t stream;   /* IM_STDOUT, IM_STDERR; ignore others */
  uint32_t flags;    /* IM_FLAG_REDELIVERED */
  uint32_t reserved; /* 0 */
  uint64_t offset;   /* of the first byte in the group's stream, which outlives the process */
  uint64_t mono_ns;  /* CLOCK_MONOTONIC at the read; 0 if it was not taken */
  im_str data;
} im_output;

/* Argument of event. A longer one begins with these members. */
typedef struct im_event {
  uint32_t size;
  uint32_t kind;     /* IM_EVENT_* */
  int32_t pid;       /* the process */
  int32_t code;      /* exit: its exit code, else -1 */
  int32_t signal;    /* exit: the signal that ended it, else -1 */
  uint32_t count;    /* respawns of the process in the life of the group */
  uint32_t flags;    /* IM_FLAG_KEPT, IM_FLAG_CORE */
  uint32_t reserved; /* 0 */
  uint64_t mono_ns;  /* CLOCK_MONOTONIC of the fact */
  uint64_t wall_ns;  /* nanoseconds since 1970-01-01 UTC of the fact */
  uint64_t ran_ns;   /* exit: how long the process ran */
} im_event;

/* Filled in by `pids` of im_host. 0: there is no such process. */
typedef struct im_pids {
  uint32_t size;   /* set to sizeof(im_pids) before the call; the host writes no more than that */
  int32_t process; /* the user's program */
  int32_t monitor; /* the pump, which hosts the monitors */
  int32_t daemon;  /* keeps the pump alive; strategy daemon only */
} im_pids;

/* One declared option. Texts are NUL-terminated UTF-8 and live as long as the library. */
typedef struct im_option {
  const char *name;           /* [a-z][a-z0-9_]* */
  const char *help;           /* one line */
  const char *default_value;  /* as a user would type it; null for none */
  const char *const *choices; /* of IM_OPTION_CHOICE; else null */
  size_t choice_count;
  uint32_t kind;  /* IM_OPTION_* type */
  uint32_t flags; /* IM_OPTION_REQUIRED, _NULLABLE, _SECRET */
} im_option;

/* What get_extension(IM_EXTENSION_OPTIONS) of a monitor points at; lives as long as the library. The host
   refuses what is not declared. Values are for the monitor to validate, in check and in create. */
typedef struct im_options {
  uint32_t size;  /* sizeof(im_options) */
  uint32_t flags; /* 0 */
  const im_option *options;
  size_t count;
} im_options;

/* What get_extension(IM_EXTENSION_CRASH) of im_host points at: the last death of a pump or a daemon of the group, other
   than an orderly end; null if there was none. Lives as long as im_host. A longer one begins with these members. */
typedef struct im_crash {
  uint32_t size;           /* sizeof(im_crash), or more from a newer host */
  uint32_t role;           /* IM_ROLE_* */
  int32_t code;            /* its exit code; -1 if it had none, or that is not known (of a daemon it is not) */
  int32_t signal;          /* the signal that ended it; -1 if none did, or that is not known */
  uint64_t wall_ns;        /* nanoseconds since 1970-01-01 UTC at which its death was noticed */
  int32_t pid;             /* the pid it had */
  uint32_t count;          /* crashes in a row, this one included; a pump that ran for --stable ends a row */
  im_str monitor;          /* label of the monitor whose hook was in progress; null if none was */
  im_str hook;             /* name of that hook: create, setup, stdout, stderr, spawn, respawn, exit, idle, ... */
  uint64_t offsets[2];     /* up to where stdout and stderr were delivered to every monitor */
  uint32_t pending_stream; /* stream of the chunk that was taken and not delivered to everybody; 0: none */
  uint32_t flags;          /* IM_CRASH_BY_HOOK */
  uint64_t pending_offset; /* offset of that chunk in its stream */
  uint64_t pending_bytes;  /* its length */
  im_str stderr_tail;      /* the last bytes of its stderr, 4096 at most; the message of setup may have more */
} im_crash;

/* ---- what a monitor can ask of its host --------------------------------------------------------------- */

/*
 * One for each instance (and one for check), never freed nor changed, so that a monitor's own thread may use it
 * for the rest of the process's life. Every function: first argument `ctx`, any thread, does not block, does
 * not call back into the monitor; borrowed arguments are copied. A null function is not offered.
 */
typedef struct im_host {
  uint32_t abi;  /* IM_ABI */
  uint32_t size; /* sizeof(im_host) */
  void *ctx;
  uint32_t max_log_level; /* records above are not wanted: 0 off, 1 error, 2 warn, 3 info, 4 debug, 5 trace */
  uint32_t reserved_0;    /* 0 */

  /* Writes a record to the host's own log, under the monitor's label. `target` may be empty. */
  void (*log)(void *ctx, uint32_t level, im_str target, im_str text);

  /* Says why a hook fails, from within it, before it returns IM_FAILED (create: null). Outside any hook, as on
     a thread of the monitor's own, it ends the pump with that text. */
  void (*fail)(void *ctx, im_str text);

  /* Says that a monitor whose setup returned IM_PENDING is ready. Without effect at any other time. */
  void (*ready)(void *ctx);

  /* Asks for a restart of the process. It takes effect after the current call, so calling it in `event` does
     not recurse. Returns 1 if it was noted, 0 if there is nothing to restart. */
  uint32_t (*restart)(void *ctx);

  /* Asks for the end of the whole group; as restart. */
  uint32_t (*shutdown)(void *ctx);

  /* Fills in one consistent snapshot. Set pids->size first. */
  void (*pids)(void *ctx, im_pids *pids);

  /* A setting with one value: name, label, strategy, exec, file, cwd, on_crash, directory. `data` is null if it
     is not set. What is returned lives as long as im_host. */
  im_str (*get)(void *ctx, im_str key);

  /* Number of values of a list setting: args, env (KEY=VALUE each). 1 or 0 for a setting with one value. */
  size_t (*count)(void *ctx, im_str key);

  /* One value of a list setting; `data` is null past the end. Lives as long as im_host. */
  im_str (*at)(void *ctx, im_str key, size_t index);

  /* Says that every byte of a stream before `offset` is safe with this monitor. Said in setup, it tells the
     host where to go on. */
  void (*durable)(void *ctx, uint32_t stream, uint64_t offset);

  /* Shows a value under a key of the monitor's own in `immortal status`; an empty value removes the key. All
     monitors of a group share 2560 bytes of JSON: a value for which there is no room is not shown. */
  void (*report)(void *ctx, im_str key, im_str value);

  /* A named extension of the host; null if it has none of that name. */
  const void *(*get_extension)(void *ctx, const char *name);

  const void *reserved_pointers[8]; /* null */
  uint64_t reserved_numbers[4];     /* 0 */
} im_host;

/* ---- what a monitor offers ---------------------------------------------------------------------------- */

/* A null function is "not implemented"; create and destroy may not be null. */
typedef struct im_monitor {
  uint32_t magic; /* IM_MAGIC */
  uint32_t abi;   /* IM_ABI */
  uint32_t size;  /* sizeof(im_monitor) */
  uint32_t flags; /* IM_MONITOR_PANIC_ABORT */
  const char *name;
  const char *version;
  const char *about; /* one line */

  /* Judges the options before anything is started. Runs in a helper process of its own: nothing can be carried
     over to create, and nothing should be left behind. IM_FAILED ends `immortal start` with the text of fail. */
  int32_t (*check)(const im_host *host, const im_opt *options, size_t count);

  /* Makes an instance, in the pump, on the thread of all later calls. `host` may be kept, `options` not. Null
     after fail ends the pump. */
  void *(*create)(const im_host *host, const im_opt *options, size_t count);

  /* First call of an instance, once. IM_OK: ready. IM_PENDING: ready later. The process is spawned when every
     monitor is ready; one that is not in time, or fails, ends the pump. */
  int32_t (*setup)(void *instance, const im_setup *setup);

  /* Takes bytes of a stream; per stream in order, nothing lost, nothing invented. IM_FAILED ends the pump. */
  int32_t (*output)(void *instance, const im_output *output);

  /* Takes an event of the process's life. IM_FAILED ends the pump. */
  int32_t (*event)(void *instance, const im_event *event);

  /* There is nothing more to read for now. IM_FAILED ends the pump. */
  int32_t (*idle)(void *instance);

  /* The group ends in order: write out everything before this moment of CLOCK_MONOTONIC. */
  int32_t (*finish)(void *instance, uint64_t deadline_ns);

  /* Last call, after finish: frees the instance. A thread of the monitor's own may go on. */
  void (*destroy)(void *instance);

  /* A named extension of the monitor; null if it has none of that name. Any thread, before create as well. What
     is returned lives as long as the library. */
  const void *(*get_extension)(const char *name);

  const void *reserved_pointers[8]; /* null */
  uint64_t reserved_numbers[4];     /* 0 */
} im_monitor;

/* To be defined by the monitor, without IM_EXPORT: this declaration exports it. */
IM_EXPORT extern const im_monitor immortal_monitor_v1;

#ifdef __cplusplus
}
#endif

#endif
