// SPDX-License-Identifier: MIT
// Options from the environment; the list of synchronisation sites.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "host_execution/core.h"

namespace hx {

bool watching_sites = false;

namespace {

const char* variable(const char* name) {
  char full[64];
  std::snprintf(full, sizeof full, "HOST_EXECUTION_%s", name);
  return std::getenv(full);
}

[[noreturn]] void refuse(const char* name, const char* value, const char* expected) {
  std::fprintf(stderr, "HOST_EXECUTION_%s=%s: expected %s\n", name, value, expected);
  std::exit(2);
}

template <class T>
void read_number(const char* name, T& number) {
  const char* value = variable(name);
  if (value == nullptr) return;
  char* end;
  number = static_cast<T>(std::strtoull(value, &end, 0));
  if (end == value || *end != 0) refuse(name, value, "a number");
}

template <class T>
void read_word(const char* name, T& word, const char* const (&words)[3]) {
  const char* value = variable(name);
  if (value == nullptr) return;
  for (int i = 0; i < 3; ++i) {
    if (std::strcmp(value, words[i]) == 0) {
      word = static_cast<T>(i);
      return;
    }
  }
  char expected[64];
  std::snprintf(expected, sizeof expected, "%s, %s or %s", words[0], words[1], words[2]);
  refuse(name, value, expected);
}

Options from_environment() {
  Options o;
  read_word("SCHED", o.schedule, {"fifo", "lifo", "random"});
  read_word("ASYNC", o.copies, {"eager", "lazy", "mixed"});
  read_number("SEED", o.seed);
  read_number("RESIDENT", o.resident);
  read_number("STRICT", o.strict);
  read_number("PREEMPT", o.preempt);
  size_t stack_kib = 0;
  read_number("STACK", stack_kib);
  o.stack_bytes = stack_kib << 10;
  if (const char* skip = variable("SKIP")) o.skip = skip;
  o.list_sites = variable("SITES") != nullptr;
  watching_sites = o.list_sites || *o.skip != 0;
  return o;
}

// Of fixed size: it grows on fibers (internal.h). Open addressing by line.
constexpr unsigned kMaxSites = 4096;
Site sites[kMaxSites];

Site& find_site(const char* what, const Place& at) {
  for (unsigned i = unsigned(at.line) % kMaxSites, tries = 0; tries < kMaxSites; ++tries) {
    Site& s = sites[i];
    if (s.what == nullptr) {
      s.what = what;
      s.at = at;
      return s;
    }
    if (s.at.line == at.line && !std::strcmp(name_of(s.at), name_of(at)) &&
        !std::strcmp(s.what, what)) {
      return s;
    }
    if (++i == kMaxSites) i = 0;
  }
  fail("more than %u synchronisation sites", kMaxSites);
}

// Whether the list "file:line,file:line" has it.
bool listed(const char* list, const Place& at) {
  char key[256];
  const size_t n =
      static_cast<size_t>(std::snprintf(key, sizeof key, "%s:%d", name_of(at), at.line));
  for (const char* p = list; (p = std::strstr(p, key)) != nullptr; p += n) {
    if ((p == list || p[-1] == ',') && (p[n] == 0 || p[n] == ',')) return true;
  }
  return false;
}

}  // namespace

Options& options() {
  static Options o = from_environment();
  return o;
}

const char* name_of(const Place& at) {
  if (at.file == nullptr) return "?";
  const char* slash = std::strrchr(at.file, '/');
  return slash ? slash + 1 : at.file;
}

bool site_skipped(const char* what, const Place& at) {
  if (options().list_sites) ++find_site(what, at).times;
  return *options().skip != 0 && listed(options().skip, at);
}

void print_sites() {
  for (Site& s : sites) {
    if (s.what == nullptr) continue;
    std::printf("site %s:%d %llu %s\n", name_of(s.at), s.at.line,
                static_cast<unsigned long long>(s.times), s.what);
    s = Site{};
  }
}

}  // namespace hx
