// Shows in `immortal status` how many lines the program has written to stdout, and the longest of them.
// A complete monitor in C++: a class, and a guard around every call, because no exception may cross.
#include "immortal_monitor.h"

#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

namespace {

im_str text(const std::string &chars) {
  return {reinterpret_cast<const std::uint8_t *>(chars.data()), chars.size()};
}

std::string copy(im_str str) { return str.len ? std::string(reinterpret_cast<const char *>(str.data), str.len) : ""; }

class Longest {
 public:
  Longest(const im_host *host, const im_opt *options, std::size_t count) : host_(host) {
    for (std::size_t at = 0; at < count; at++)
      if (copy(options[at].key) == "max") max_ = length(copy(options[at].value));
  }

  void output(const im_output &output) {
    if (output.stream != IM_STDOUT) return;
    for (std::size_t at = 0; at < output.data.len; at++) {
      char byte = static_cast<char>(output.data.data[at]);
      if (byte != '\n') {
        if (line_.size() < max_) line_ += byte;
        continue;
      }
      lines_++;
      if (line_.size() > longest_.size()) longest_ = line_;
      line_.clear();
    }
  }

  void event(const im_event &event) {
    if (event.kind != IM_EVENT_EXIT) return;
    report("lines", std::to_string(lines_));
    report("longest_line", longest_);
  }

 private:
  static std::size_t length(const std::string &value) {
    if (value.empty() || value.size() > 9 || value.find_first_not_of("0123456789") != std::string::npos)
      throw std::invalid_argument("option max: not a number of bytes");
    return std::stoul(value);
  }

  void report(const std::string &key, const std::string &value) { host_->report(host_->ctx, text(key), text(value)); }

  const im_host *host_;
  std::size_t max_ = 200;
  std::uint64_t lines_ = 0;
  std::string line_, longest_;
};

// Runs a call's body. What is thrown goes to the host as the reason; the value is what the call then returns.
template <class Result, class Body>
Result guarded(const im_host *host, Result failed, Body body) {
  std::string why;
  try {
    return body();
  } catch (const std::exception &error) {
    why = error.what();
  } catch (...) {
    why = "an exception of an unknown kind";
  }
  host->fail(host->ctx, text(why));
  return failed;
}

// The host is needed by every guard, so an instance is both.
struct Instance {
  const im_host *host;
  Longest longest;
};

extern "C" {

std::int32_t check(const im_host *host, const im_opt *options, std::size_t count) {
  return guarded(host, std::int32_t{IM_FAILED}, [&] {
    Longest judged(host, options, count);
    return std::int32_t{IM_OK};
  });
}

void *create(const im_host *host, const im_opt *options, std::size_t count) {
  return guarded(host, static_cast<void *>(nullptr), [&]() -> void * {
    return new Instance{host, Longest(host, options, count)};
  });
}

std::int32_t output(void *instance, const im_output *output) {
  auto *self = static_cast<Instance *>(instance);
  return guarded(self->host, std::int32_t{IM_PANICKED}, [&] {
    self->longest.output(*output);
    return std::int32_t{IM_OK};
  });
}

std::int32_t event(void *instance, const im_event *event) {
  auto *self = static_cast<Instance *>(instance);
  return guarded(self->host, std::int32_t{IM_PANICKED}, [&] {
    self->longest.event(*event);
    return std::int32_t{IM_OK};
  });
}

void destroy(void *instance) { delete static_cast<Instance *>(instance); }

const im_option declared[] = {
    {"max", "longest line that is kept, in bytes", "200", nullptr, 0, IM_OPTION_INTEGER, 0},
};
const im_options options = {sizeof options, 0, declared, 1};

const void *get_extension(const char *name) {
  return std::strcmp(name, IM_EXTENSION_OPTIONS) == 0 ? &options : nullptr;
}

}  // extern "C"

}  // namespace

const im_monitor immortal_monitor_v1 = {
    IM_MAGIC, IM_ABI,  sizeof(im_monitor), 0,     "longest", "1.0.0", "Reports the number of lines and the longest",
    check,    create,  nullptr,            output, event,    nullptr, nullptr,
    destroy,  get_extension, {nullptr},    {0},
};
