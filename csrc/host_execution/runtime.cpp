// host_execution.cpp - scheduler and runtime of the host execution layer. Compiled without -fsanitize=thread.
#include <host_execution/host_execution.h>
#include <host_execution/ptx_host.h>
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <sys/mman.h>
#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#define HX_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(HX_WITH_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(HX_UCONTEXT)
#include <ucontext.h>
#elif !defined(HX_BOOST)
#if !defined(__x86_64__)
#error "write the 20-line switch for this machine, or build with -DHS_UCONTEXT or -DHS_BOOST"
#endif
#endif

namespace hx {
__thread Thread* hx_cur = nullptr;
Stats last, total;
enum { Fresh, Runnable, Spinning, Waiting, Done, Aborted };

// Under TSan nothing here may call malloc/free on a fiber (they count as accesses of that fiber), so
// lists are intrusive and growing data comes from an arena that is emptied when a launch ends.
struct Copy { void* dst; const void* src; unsigned bytes, n, group; };
struct Async { Copy* q = nullptr; unsigned head = 0, tail = 0, cap = 0, group = 0; };
struct List { Thread *first = nullptr, *end = nullptr; };
struct Bulk { Copy c; uint64_t* bar; Block* block; };
struct Rendezvous { unsigned mask, arrived; const Op* op; void* payload[32]; Thread* who[32]; const char* file; int line; char* sync; };
struct Warp { unsigned live = 0, made = 0, n = 0; Rendezvous open[32]; char sync[64]; };
struct Barrier { unsigned arrived = 0, expected = 0, gen = 0; int acc = 0, result[2] = {0, 0}; const char* file = nullptr; int line = 0; List waiting; char sync[2]; };
struct Piece { const void* tag; size_t off, bytes; char* mem; };
struct Block : BlockView {
  unsigned live = 0, nthreads = 0;
  size_t static_bytes = 0;
  std::unique_ptr<Thread[]> th;
  std::unique_ptr<Warp[]> warps;
  Barrier bar[16];
  Piece statics[64], pieces[64];
  unsigned nstatics = 0, npieces = 0;
  char* dyn = nullptr;
};

// ------------------------------------------------------------------ options
Options& options() {
  static Options o = [] {
    Options o;
    auto env = [](const char* n) { return std::getenv(n); };
    if (auto e = env("HOST_EXECUTION_SCHED")) o.policy = e[0] == 'f' ? Options::Fifo : e[0] == 'l' ? Options::Lifo : Options::Random;
    if (auto e = env("HOST_EXECUTION_ASYNC")) o.async = e[0] == 'e' ? Options::Eager : e[0] == 'l' ? Options::Lazy : Options::Mixed;
    if (auto e = env("HOST_EXECUTION_SEED")) o.seed = std::strtoull(e, nullptr, 0);
    if (auto e = env("HOST_EXECUTION_STRICT")) o.strict = e[0] != '0';
    if (auto e = env("HOST_EXECUTION_RESIDENT")) o.resident = unsigned(std::atoi(e));
    if (auto e = env("HOST_EXECUTION_PREEMPT")) o.preempt = unsigned(std::atoi(e));
    if (auto e = env("HOST_EXECUTION_SKIP")) o.skip = e;
    return o;
  }();
  return o;
}
static uint64_t rng_state = 1;
static inline uint64_t rng() {
  rng_state ^= rng_state << 13; rng_state ^= rng_state >> 7; rng_state ^= rng_state << 17;
  return rng_state;
}
static inline uint64_t below(uint64_t n) { return uint64_t((unsigned __int128)(rng() * 0x9E3779B97F4A7C15ull) * n >> 64); }
unsigned preempt_roll() { return unsigned(below(options().preempt ? options().preempt : 1)); }

// ------------------------------------------------------------------ context switch
#if defined(HX_BOOST)
extern "C" { struct hx_transfer { void* fctx; void* data; };
hx_transfer jump_fcontext(void* to, void* vp); void* make_fcontext(void* sp, size_t size, void (*fn)(hx_transfer)); }
#elif !defined(HX_UCONTEXT)
extern "C" void hx_switch(void** save, void* load);
extern "C" void hx_start();
asm(R"(
.text
.globl hx_switch
.type hx_switch,@function
hx_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size hx_switch,.-hx_switch
.globl hx_start
.type hx_start,@function
hx_start:
  .cfi_startproc
  .cfi_undefined rip
  call hx_entry
  ud2
  .cfi_endproc
.size hx_start,.-hx_start
)");
#endif

struct Ready {                        // ring buffer, sized on the main context
  std::vector<Thread*> v;
  size_t head = 0, n = 0;
  void grow(size_t want) {
    if (want <= v.size()) return;
    std::vector<Thread*> w(std::max<size_t>(64, want * 2));
    for (size_t i = 0; i < n; ++i) w[i] = at(i);
    v.swap(w);
    head = 0;
  }
  Thread*& at(size_t i) { size_t k = head + i; return v[k >= v.size() ? k - v.size() : k]; }
  void push_back(Thread* t) { at(n) = t; ++n; }
  void push_front(Thread* t) { head = (head ? head : v.size()) - 1; v[head] = t; ++n; }
  Thread* pop_front() { Thread* t = v[head]; if (++head == v.size()) head = 0; --n; return t; }
  Thread* pop_back() { --n; return at(n); }
  bool empty() const { return n == 0; }
  size_t size() const { return n; }
};
struct Arena {
  std::vector<std::pair<char*, size_t>> chunks;
  size_t used = 0, cur = 0;
  char* take(size_t bytes, size_t align) {
    for (;;) {
      if (cur < chunks.size()) {
        used = (used + align - 1) / align * align;
        if (used + bytes <= chunks[cur].second) { char* p = chunks[cur].first + used; used += bytes; return p; }
        if (cur + 1 < chunks.size()) { ++cur; used = 0; continue; }
      }
      size_t sz = std::max<size_t>(bytes + align, size_t(1) << 30);   // address space only
      char* p = static_cast<char*>(mmap(nullptr, sz, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
      if (p == MAP_FAILED) std::abort();
      chunks.push_back({p, sz});      // capacity is reserved in run()
      cur = chunks.size() - 1; used = 0;
    }
  }
  void reset() { cur = 0; used = 0; }
};
struct Sim {
  const Config* cfg = nullptr;
  const char* name = "";
  void (*body)(void*) = nullptr;
  void* args = nullptr;
  Ready ready;
  Arena arena;
  std::vector<std::unique_ptr<Block>> blocks;      // resident
  std::vector<char*> dead_stacks;                  // TSan: released at the end of the launch only
  std::vector<std::unique_ptr<Block>> dead_blocks;
  std::vector<unsigned> todo;
  std::vector<Bulk> bulk;
  uint64_t remaining = 0, spin_streak = 0;
  unsigned grid_arrived = 0, grid_gen = 0;
  List grid_waiting;
  char grid_sync[2], end_sync;
  void* main_sp = nullptr;
  void* main_fake = nullptr;
  const void* main_bottom = nullptr;
  size_t main_size = 0;
  void* main_tsan = nullptr;
  bool active = false, failed = false;
  Error err{};
  std::vector<char*> stacks;
  uint64_t stacks_made = 0;
};
static Sim S;

static const size_t kStack = [] {
  if (auto e = std::getenv("HOST_EXECUTION_STACK")) return size_t(std::atol(e)) * 1024;
#if defined(HX_ASAN)
  return size_t(256) << 10;
#else
  return size_t(64) << 10;
#endif
}();

static char* get_stack() {
  if (S.stacks.empty()) {
    const size_t n = 64;
    char* p = static_cast<char*>(mmap(nullptr, n * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (p == MAP_FAILED) { std::perror("host_execution: mmap"); std::abort(); }
    for (size_t i = n; i-- > 0;) {
      if (S.stacks_made < 16384) mprotect(p + i * kStack, 4096, PROT_NONE);   // guard page (max_map_count allows no more)
      S.stacks.push_back(p + i * kStack);
      ++S.stacks_made;
    }
  }
  char* s = S.stacks.back();
  S.stacks.pop_back();
  return s;
}
static void put_stack(char* s) {
#if defined(HX_ASAN)
  __asan_unpoison_memory_region(s + 4096, kStack - 4096);
#endif
  S.stacks.push_back(s);
}

static void to_main() {                             // called on a fiber
  [[maybe_unused]] Thread* t = hx_cur;
#if defined(HX_ASAN)
  __sanitizer_start_switch_fiber(t->state >= Done ? nullptr : &t->fake, S.main_bottom, S.main_size);
#endif
#if defined(HX_WITH_TSAN)
  __tsan_switch_to_fiber(S.main_tsan, 1);
#endif
#if defined(HX_UCONTEXT)
  swapcontext(static_cast<ucontext_t*>(t->sp), static_cast<ucontext_t*>(S.main_sp));
#elif defined(HX_BOOST)
  S.main_sp = jump_fcontext(S.main_sp, nullptr).fctx;
#else
  hx_switch(&t->sp, S.main_sp);
#endif
#if defined(HX_ASAN)
  __sanitizer_finish_switch_fiber(t->fake, &S.main_bottom, &S.main_size);
#endif
}
static void run_thread() {
#if defined(HX_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &S.main_bottom, &S.main_size);
#endif
  try { S.body(S.args); async_commit(); async_wait(0); }
  catch (const std::exception& e) { fail("exception in the kernel: %s", e.what()); }
#if defined(HX_WITH_TSAN)
  __tsan_release(&S.end_sync);
#endif
  hx_cur->state = Done;
  to_main();
}
extern "C" void hx_entry() { run_thread(); __builtin_trap(); }
#if defined(HX_BOOST)
static void boost_entry(hx_transfer t) { S.main_sp = t.fctx; run_thread(); }
#endif

static void resume(Thread* t) {
  if (t->state == Fresh) {
    t->stack = get_stack();
    // shifted by a different number of cache lines each, or all stack tops would share one cache set
    [[maybe_unused]] char* top = t->stack + kStack - (reinterpret_cast<uintptr_t>(t->stack) / kStack * 7 % 61) * 64;
#if defined(HX_UCONTEXT)
    auto* u = new ucontext_t;
    getcontext(u);
    u->uc_stack.ss_sp = t->stack; u->uc_stack.ss_size = kStack; u->uc_link = nullptr;
    makecontext(u, hx_entry, 0);
    t->sp = u;
#elif defined(HX_BOOST)
    t->sp = make_fcontext(top, kStack - 4096, boost_entry);
#else
    void** sp = reinterpret_cast<void**>(top) - 2;  // keeps the ABI's 16-byte alignment at hx_start's call
    *--sp = reinterpret_cast<void*>(&hx_start);
    for (int i = 0; i < 6; ++i) *--sp = nullptr;
    t->sp = sp;
#endif
  }
  t->state = Runnable;
  hx_cur = t;
  ++last.resumes;
#if defined(HX_ASAN)
  __sanitizer_start_switch_fiber(&S.main_fake, t->stack, kStack);
#endif
#if defined(HX_WITH_TSAN)
  __tsan_switch_to_fiber(t->tsan, 1);
#endif
#if defined(HX_UCONTEXT)
  ucontext_t m;
  S.main_sp = &m;
  swapcontext(&m, static_cast<ucontext_t*>(t->sp));
#elif defined(HX_BOOST)
  t->sp = jump_fcontext(t->sp, nullptr).fctx;
#else
  hx_switch(&S.main_sp, t->sp);
#endif
#if defined(HX_ASAN)
  __sanitizer_finish_switch_fiber(S.main_fake, nullptr, nullptr);
#endif
  hx_cur = nullptr;
}

// ------------------------------------------------------------------ errors
static const char* base(const char* f) { if (!f) return "?"; const char* s = std::strrchr(f, '/'); return s ? s + 1 : f; }
void fail(const char* fmt, ...) {
  char* o = S.err.text;
  size_t n = sizeof S.err.text, k = 0;
  if (hx_cur) {
    auto& b = hx_cur->block->bid; auto& t = hx_cur->tid;
    k = size_t(std::snprintf(o, n, "host_execution: %s block (%u,%u,%u) thread (%u,%u,%u): ", S.name, b.x, b.y, b.z, t.x, t.y, t.z));
  } else k = size_t(std::snprintf(o, n, "host_execution: %s: ", S.name));
  va_list ap;
  va_start(ap, fmt);
  std::vsnprintf(o + k, n - k, fmt, ap);
  va_end(ap);
  S.failed = true;
  if (!hx_cur) throw S.err;
  hx_cur->state = Aborted;
  to_main();
  __builtin_unreachable();
}
static void stuck(const char* kind) {
  std::map<std::string, std::pair<unsigned, Thread*>> where;
  for (auto& b : S.blocks) for (unsigned i = 0; i < b->nthreads; ++i) {
    Thread& t = b->th[i];
    if (t.state == Done) continue;
    char s[300];
    std::snprintf(s, sizeof s, "%s at %s:%d", t.what ? t.what : "?", base(t.file), t.line);
    auto& e = where[s];
    ++e.first;
    if (!e.second) e.second = &t;
  }
  std::string m;
  for (auto& [k, e] : where) {
    char s[400];
    std::snprintf(s, sizeof s, "\n  %u thread(s) in %s, e.g. block %u thread %u", e.first, k.c_str(), e.second->block->bid.x, e.second->linear);
    m += s;
  }
  fail("%s%s", kind, m.c_str());
}
static std::map<std::string, uint64_t> sites;
static bool list_on = std::getenv("HOST_EXECUTION_SITES") != nullptr;
void list_sites() { for (auto& [k, n] : sites) std::printf("site %s %llu\n", k.c_str(), (unsigned long long)n); }
static bool site(const char* what, const char* file, int line) {    // true when skipped
  const char* skip = options().skip;
  if (!*skip && !list_on) return false;
  char key[256];
  std::snprintf(key, sizeof key, "%s:%d", base(file), line);
  if (list_on) ++sites[std::string(key) + " " + what];
  size_t n = std::strlen(key);
  for (const char* p = skip; (p = std::strstr(p, key)); p += n)
    if ((p == skip || p[-1] == ',') && (p[n] == 0 || p[n] == ',')) return true;
  return false;
}
bool skipped(const char* f, int l) { return site("wait", f, l); }

// ------------------------------------------------------------------ shared memory
__attribute__((optimize("no-tree-loop-distribute-patterns"))) static char* shared_alloc(size_t bytes, size_t align) {
#if defined(HX_WITH_TSAN)
  char* c = S.arena.take(bytes, std::max<size_t>(align, 16));
  for (size_t i = 0; i < bytes; ++i) c[i] = char(options().poison ? 0xFF : 0);
  return c;
#else
  void* p = nullptr;
  if (posix_memalign(&p, std::max<size_t>(align, 16), bytes ? bytes : 1)) std::abort();
  if (options().poison) std::memset(p, 0xFF, bytes);
  return static_cast<char*>(p);
#endif
}
static void shared_free([[maybe_unused]] void* p) {
#if !defined(HX_WITH_TSAN)
  std::free(p);
#endif
}
void* static_shared(const void* tag, size_t bytes, size_t align) {
  Block& b = *hx_cur->block;
  for (unsigned i = 0; i < b.nstatics; ++i) if (b.statics[i].tag == tag) return b.statics[i].mem;
  if (b.nstatics == 64) fail("more than 64 static shared arrays");
  b.static_bytes += (bytes + align - 1) / align * align;
  if (b.static_bytes > 48 * 1024) fail("static shared memory exceeds 48 KiB (%zu bytes)", b.static_bytes);
  if (b.static_bytes + S.cfg->smem > options().smem_limit) fail("static + dynamic shared memory exceeds %zu bytes", options().smem_limit);
  b.statics[b.nstatics] = {tag, 0, bytes, shared_alloc(bytes, align)};
  return b.statics[b.nstatics++].mem;
}
size_t dyn_shared_size() { return S.cfg->smem; }
void* dyn_shared() {
  Block& b = *hx_cur->block;
  if (!b.dyn) b.dyn = shared_alloc(S.cfg->smem, 1024);
  return b.dyn;
}
void* dyn_carve(size_t off, size_t bytes, size_t align, const char* file, int line) {
  Block& b = *hx_cur->block;
  for (unsigned i = 0; i < b.npieces; ++i) {
    Piece& p = b.pieces[i];
    if (p.off == off && p.bytes == bytes) return p.mem;
    if (off < p.off + p.bytes && p.off < off + bytes) fail("%s:%d: overlapping pieces of dynamic shared memory", base(file), line);
  }
  if (off + bytes > S.cfg->smem) fail("%s:%d: piece ends at byte %zu, the launch gave %zu bytes of dynamic shared memory", base(file), line, off + bytes, S.cfg->smem);
  if (b.npieces == 64) fail("more than 64 pieces of dynamic shared memory");
  b.pieces[b.npieces] = {nullptr, off, bytes, shared_alloc(bytes, align)};
  return b.pieces[b.npieces++].mem;
}
bool in_shared(const void* q, size_t n) {
  Block& b = *hx_cur->block;
  const char* c = static_cast<const char*>(q);
  for (unsigned i = 0; i < b.npieces; ++i) if (c >= b.pieces[i].mem && c + n <= b.pieces[i].mem + b.pieces[i].bytes) return true;
  for (unsigned i = 0; i < b.nstatics; ++i) if (c >= b.statics[i].mem && c + n <= b.statics[i].mem + b.statics[i].bytes) return true;
  return b.dyn && c >= b.dyn && c + n <= b.dyn + S.cfg->smem;
}

// ------------------------------------------------------------------ waiting
static void wake(Thread* t) { t->state = Runnable; S.ready.push_back(t); }
static void add(List& l, Thread* t) { t->next = nullptr; if (l.end) l.end->next = t; else l.first = t; l.end = t; }
static void wake_all(List& l, Thread* but) {
  for (Thread *t = l.first, *n; t; t = n) { n = t->next; if (t != but) wake(t); }
  l = List{};
}
static void wait_here(const char* what, const char* file, int line) {
  Thread* t = hx_cur;
  t->what = what; t->file = file; t->line = line;
  if (t->state != Spinning) t->state = Waiting;
  to_main();
  t->what = nullptr;
}
void spin_yield(const char* file, int line) { hx_cur->state = Spinning; ++last.spins; wait_here("a spin loop", file, line); }
void preempt() { hx_cur->state = Runnable; S.ready.push_back(hx_cur); to_main(); }

static void complete(Barrier& b, Thread* self) {
  b.result[b.gen & 1] = b.acc;
  b.acc = 0; b.arrived = 0;
  ++b.gen;
  ++last.barriers;
  wake_all(b.waiting, self);
  b.file = nullptr;
}
int block_barrier(int id, unsigned nthreads, int value, const char* what, const char* file, int line) {
  if (site(what, file, line)) return value;
  Thread* t = hx_cur;
  Block& k = *t->block;
  Barrier& b = k.bar[id];
  unsigned gen = b.gen;
  b.expected = nthreads;
  if (!b.file) { b.file = file; b.line = line; }
  else if (options().strict && (b.line != line || std::strcmp(b.file, file)))
    fail("divergent barrier: this thread is at %s:%d, others of the block at %s:%d", base(file), line, base(b.file), b.line);
#if defined(HX_WITH_TSAN)
  __tsan_release(&b.sync[gen & 1]);
#endif
  b.acc += value;
  add(b.waiting, t);
  if (++b.arrived == (nthreads ? nthreads : k.live)) { complete(b, t); preempt(); }
  else wait_here(what, file, line);
#if defined(HX_WITH_TSAN)
  __tsan_acquire(&b.sync[gen & 1]);
#endif
  return b.result[gen & 1];
}
void grid_barrier(const char* file, int line) {
  if (!S.cfg->cooperative) fail("%s:%d: grid.sync() in a launch that is not cooperative", base(file), line);
  if (site("grid.sync", file, line)) return;
  unsigned gen = S.grid_gen;
  (void)gen;
#if defined(HX_WITH_TSAN)
  __tsan_release(&S.grid_sync[gen & 1]);
#endif
  add(S.grid_waiting, hx_cur);
  if (++S.grid_arrived == S.remaining) {
    S.grid_arrived = 0; ++S.grid_gen; ++last.barriers;
    wake_all(S.grid_waiting, hx_cur);
    preempt();
  } else wait_here("grid.sync", file, line);
#if defined(HX_WITH_TSAN)
  __tsan_acquire(&S.grid_sync[gen & 1]);
#endif
}

static bool try_complete(Warp& w, size_t i, Thread* self) {
  Rendezvous& r = w.open[i];
  unsigned need = r.mask & w.live;
  if ((r.arrived & need) != need) return false;
  ++last.collectives;
  r.op->exec(need, r.payload);
  for (int l = 0; l < 32; ++l) if ((need >> l & 1) && r.who[l] != self) wake(r.who[l]);
  w.open[i] = w.open[--w.n];
  return true;
}
void warp_collective(const Op* op, unsigned mask, void* payload, const char* file, int line) {
  Thread* t = hx_cur;
  Warp& w = *t->warp;
  if (op == &op_syncwarp && site(op->name, file, line)) return;
  if (!(mask >> t->lane & 1)) fail("%s:%d: %s: the calling lane %u is not in the mask 0x%08x", base(file), line, op->name, t->lane, mask);
  size_t i = 0;
  while (i < w.n && w.open[i].mask != mask) ++i;      // other masks may be open: lanes of them come later
  if (i == w.n) { if (++w.n == 32) fail("too many open warp collectives"); auto& r = w.open[i] = Rendezvous{}; r.mask = mask; r.op = op; r.file = file; r.line = line; r.sync = &w.sync[w.made++ % 64]; }
  Rendezvous& r = w.open[i];
  if (r.op != op || (options().strict && r.line != line))
    fail("divergent warp: lane %u is in %s at %s:%d, others in %s at %s:%d", t->lane, op->name, base(file), line, r.op->name, base(r.file), r.line);
  r.arrived |= 1u << t->lane;
  r.payload[t->lane] = payload;
  r.who[t->lane] = t;
  char* sync = r.sync;      // only __syncwarp orders memory; shuffles and mma do not
  (void)sync;
#if defined(HX_WITH_TSAN)
  if (op == &op_syncwarp) __tsan_release(sync);
#endif
  if (try_complete(w, i, t)) preempt();
  else wait_here(op->name, file, line);
#if defined(HX_WITH_TSAN)
  if (op == &op_syncwarp) __tsan_acquire(sync);
#endif
}

// ------------------------------------------------------------------ asynchronous copies
static void do_copy(const Copy& c) {
  std::memcpy(c.dst, c.src, c.n);
  if (c.n < c.bytes) std::memset(static_cast<char*>(c.dst) + c.n, 0, c.bytes - c.n);
}
void async_issue(void* dst, const void* src, unsigned bytes, unsigned n, const char*, int) {
  auto mode = options().async;
  if (!hx_cur->async) hx_cur->async = new (S.arena.take(sizeof(Async), 16)) Async;
  Async& a = *hx_cur->async;
  Copy c{dst, src, bytes, n, a.group};
  if (mode == Options::Eager || (mode == Options::Mixed && (rng() >> 20 & 1))) return do_copy(c);
  if (a.head == a.tail) a.head = a.tail = 0;
  if (a.tail == a.cap) {
    Copy* q = reinterpret_cast<Copy*>(S.arena.take(sizeof(Copy) * (a.cap ? a.cap * 2 : 16), 16));
    for (unsigned i = a.head; i < a.tail; ++i) q[i] = a.q[i];
    a.q = q;
    a.cap = a.cap ? a.cap * 2 : 16;
  }
  a.q[a.tail++] = c;
}
void async_commit() { if (hx_cur->async) ++hx_cur->async->group; }
void async_wait(unsigned keep) {
  Async* a = hx_cur->async;
  while (a && a->head < a->tail && a->q[a->head].group + keep < a->group) do_copy(a->q[a->head++]);
}
static void run_bulk(size_t i) {
  Bulk b = S.bulk[i];
  S.bulk[i] = S.bulk.back();
  S.bulk.pop_back();
#if defined(HX_WITH_TSAN)
  void* f = __tsan_create_fiber(0);
  __tsan_switch_to_fiber(f, 1);
  __tsan_acquire(b.bar);
#endif
  do_copy(b.c);
  gpu::MbarState s = gpu::mbar_load(b.bar);
  s.tx -= int(b.c.bytes);
  gpu::mbar_settle(s);
  gpu::mbar_store(b.bar, s);
#if defined(HX_WITH_TSAN)
  __tsan_release(b.bar);
  __tsan_switch_to_fiber(S.main_tsan, 1);
  __tsan_destroy_fiber(f);
#endif
  S.spin_streak = 0;
}

// ------------------------------------------------------------------ launch
static void activate(unsigned linear) {
  const dim3 g = S.cfg->grid, d = S.cfg->block;
  auto b = std::make_unique<Block>();
  b->bid = {linear % g.x, linear / g.x % g.y, linear / g.x / g.y};
  b->bdim = d; b->gdim = g;
  b->nthreads = b->live = d.x * d.y * d.z;
  b->th.reset(new Thread[b->nthreads]);
  b->warps.reset(new Warp[(b->nthreads + 31) / 32]);
  S.ready.grow(S.ready.size() + b->nthreads + 1);
  for (unsigned i = 0; i < b->nthreads; ++i) {
    Thread& t = b->th[i];
    t.tid = {i % d.x, i / d.x % d.y, i / d.x / d.y};
    t.linear = i; t.lane = i % 32; t.block = b.get(); t.warp = &b->warps[i / 32];
    t.warp->live |= 1u << t.lane;
#if defined(HX_WITH_TSAN)
    t.tsan = __tsan_create_fiber(0);
#endif
    S.ready.push_back(&t);
  }
  last.threads += b->nthreads;
  S.blocks.push_back(std::move(b));
}
static void retire(Block& b) {
  for (unsigned i = 0; i < b.npieces; ++i) shared_free(b.pieces[i].mem);
  for (unsigned i = 0; i < b.nstatics; ++i) shared_free(b.statics[i].mem);
  if (b.dyn) shared_free(b.dyn);
}
static void finish(Thread* t) {
  Block& b = *t->block;
#if defined(HX_WITH_TSAN)
  __tsan_destroy_fiber(t->tsan);
  S.dead_stacks.push_back(t->stack);   // stacks are not reused within a launch: reuse would look like a race
#else
  put_stack(t->stack);
#endif
#if defined(HX_UCONTEXT)
  delete static_cast<ucontext_t*>(t->sp);
#endif
  t->warp->live &= ~(1u << t->lane);
  --b.live; --S.remaining;
  for (size_t i = 0; i < t->warp->n;) if (!try_complete(*t->warp, i, nullptr)) ++i;
  if (b.bar[0].arrived && b.bar[0].arrived == b.live) complete(b.bar[0], nullptr);
  if (b.live == 0) {
    for (auto& c : S.bulk) if (c.block == &b) fail("block %u ended with a bulk copy to its shared memory under way", b.bid.x);
    auto it = std::find_if(S.blocks.begin(), S.blocks.end(), [&](auto& p) { return p.get() == &b; });
    retire(b);
    std::swap(*it, S.blocks.back());
#if defined(HX_WITH_TSAN)
    S.dead_blocks.push_back(std::move(S.blocks.back()));
#endif
    S.blocks.pop_back();
    if (!S.todo.empty()) { unsigned n = S.todo.back(); S.todo.pop_back(); activate(n); }
  }
}
static Thread* pick() {
  auto& q = S.ready;
  switch (options().policy) {
    case Options::Fifo: return q.pop_front();
    case Options::Lifo: return q.pop_back();
    default: std::swap(q.at(below(q.n)), q.at(q.n - 1)); return q.pop_back();
  }
}
void run(const Config& cfg, const char* name, void (*body)(void*), void* args) {
  if (S.active) { std::fprintf(stderr, "host_execution: nested launch\n"); std::abort(); }
  S.cfg = &cfg; S.name = name; S.body = body; S.args = args;
  S.failed = false; S.spin_streak = 0; S.grid_arrived = 0;
  last = Stats{};
  rng_state = options().seed * 0x9E3779B97F4A7C15ull + 0x1234567;
  unsigned nt = cfg.block.x * cfg.block.y * cfg.block.z;
  uint64_t nb = uint64_t(cfg.grid.x) * cfg.grid.y * cfg.grid.z;
  hx_cur = nullptr;
  if (nt == 0 || nt > 1024 || nb == 0) fail("bad launch shape");
  if (cfg.smem > options().smem_limit) fail("%zu bytes of dynamic shared memory asked, limit %zu", cfg.smem, options().smem_limit);
  if (cfg.cooperative) {    // would all blocks be resident? (threads and shared memory; registers: from ptxas -v)
    unsigned per = std::min<size_t>(2048 / ((nt + 31) / 32 * 32), cfg.smem ? (options().smem_limit + 1024) / (cfg.smem + 1024) : 32);
    if (nb > uint64_t(per) * options().sms) fail("cooperative launch of %llu blocks, at most %u fit at once", (unsigned long long)nb, per * options().sms);
  }
  auto t0 = std::chrono::steady_clock::now();
  S.active = true;
  S.arena.chunks.reserve(64);
  S.arena.take(1, 1);        // first mapping is made here, not on a fiber (TSan would count it as a write)
  S.remaining = nb * nt;
  S.todo.resize(nb);
  for (uint64_t i = 0; i < nb; ++i) S.todo[i] = unsigned(nb - 1 - i);
  if (options().policy == Options::Random) for (uint64_t i = nb; i > 1; --i) std::swap(S.todo[i - 1], S.todo[below(i)]);
#if defined(HX_WITH_TSAN)
  S.main_tsan = __tsan_get_current_fiber();
#endif
  uint64_t res = cfg.cooperative ? nb : std::min<uint64_t>(nb, std::max(1u, options().resident));
  for (uint64_t i = 0; i < res; ++i) { unsigned n = S.todo.back(); S.todo.pop_back(); activate(n); }
  bool threw = false;
  try {
    while (S.remaining) {
      if (S.ready.empty()) {
        if (!S.bulk.empty()) { run_bulk(below(S.bulk.size())); continue; }
        stuck("deadlock: no thread can run");
      }
      if (!S.bulk.empty() && (rng() >> 20) % 16 == 0) run_bulk(below(S.bulk.size()));
      Thread* t = pick();
      resume(t);
      if (t->state == Done) { finish(t); S.spin_streak = 0; }
      else if (t->state == Aborted) throw S.err;
      else if (t->state == Spinning) {
        t->state = Waiting;
        if (options().policy == Options::Lifo) S.ready.push_front(t); else S.ready.push_back(t);
        if (++S.spin_streak > 4096 + 64 * S.ready.size()) {
          if (S.bulk.empty()) stuck("livelock: only spinning threads are left");
          run_bulk(below(S.bulk.size()));
        }
      } else S.spin_streak = 0;
    }
  } catch (Error&) { threw = true; }
#if defined(HX_WITH_TSAN)
  __tsan_acquire(&S.end_sync);
  for (char* p : S.dead_stacks) put_stack(p);
  S.dead_stacks.clear(); S.dead_blocks.clear();
#endif
  if (threw) {          // abandon what still lives; fibers are not unwound
    for (auto& b : S.blocks) {
      for (unsigned i = 0; i < b->nthreads; ++i) {
        Thread& t = b->th[i];
        if (t.state != Done && t.stack) {
#if defined(HX_WITH_TSAN)
          __tsan_destroy_fiber(t.tsan);
#endif
          put_stack(t.stack);
        }
      }
      retire(*b);
    }
    S.blocks.clear(); S.ready.n = 0; S.bulk.clear(); S.grid_waiting = List{};
  }
  S.arena.reset();
  S.active = false;
  last.stacks = S.stacks_made;
  last.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count();
  total.threads += last.threads; total.resumes += last.resumes; total.collectives += last.collectives;
  total.barriers += last.barriers; total.spins += last.spins; total.seconds += last.seconds;
  if (threw) throw S.err;
}
}  // namespace hx

void gpu::bulk_copy_g2s(void* smem, const void* gmem, unsigned bytes, uint64_t* b, const char* hx_file, int hx_line) {
  if (bytes % 16 || reinterpret_cast<uintptr_t>(smem) % 16 || reinterpret_cast<uintptr_t>(gmem) % 16) hx::fail("%s:%d: bulk copy: size and addresses must be multiples of 16", HX_AT);
  if (!hx::in_shared(smem, bytes)) hx::fail("%s:%d: bulk copy: destination is not in this block's shared memory", HX_AT);
  mbar_check(b);
#if defined(HX_WITH_TSAN)
  __tsan_release(b);
#endif
  hx::S.bulk.push_back({{smem, gmem, bytes, bytes, 0}, b, hx::hx_cur->block});
}
