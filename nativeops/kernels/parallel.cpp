// The default backend of parallel_for: a small pool of std::thread, as many as OMP_NUM_THREADS says or the machine has.
#include "parallel.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace detc {
namespace {

class Pool {
 public:
  explicit Pool(int64_t threads) : owner_(getpid()) {
    for (int64_t i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) {
      // A forked child inherits the handles but not the threads.
      if (getpid() == owner_)
        worker.join();
      else
        worker.detach();
    }
  }

  // Splits [0, n) into one chunk a thread; the caller works too. Nested or concurrent calls run in the caller alone.
  void run(int64_t n, int64_t grain, RangeBody body, void* context) {
    const int64_t threads = static_cast<int64_t>(workers_.size()) + 1;
    const int64_t wanted = (n + grain - 1) / (grain > 0 ? grain : 1);
    const int64_t chunks = wanted < threads ? wanted : threads;
    if (chunks <= 1 || getpid() != owner_ || !busy_.try_lock()) {
      body(0, n, context);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      n_ = n;
      chunks_ = chunks;
      body_ = body;
      context_ = context;
      next_ = 0;
      pending_ = chunks;
    }
    wake_.notify_all();
    drain();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
    chunks_ = 0;
    lock.unlock();
    busy_.unlock();
  }

 private:
  void drain() {
    for (;;) {
      int64_t chunk, n, chunks;
      RangeBody body;
      void* context;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (next_ >= chunks_) return;
        chunk = next_++;
        n = n_;
        chunks = chunks_;
        body = body_;
        context = context_;
      }
      const int64_t begin = n / chunks * chunk + (chunk < n % chunks ? chunk : n % chunks);
      const int64_t end = begin + n / chunks + (chunk < n % chunks ? 1 : 0);
      body(begin, end, context);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--pending_ == 0) done_.notify_all();
    }
  }

  void work() {
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this] { return stopping_ || next_ < chunks_; });
        if (stopping_) return;
      }
      drain();
    }
  }

  const pid_t owner_;
  std::vector<std::thread> workers_;
  std::mutex busy_;   // held by the caller of the one loop that runs
  std::mutex mutex_;  // guards everything below
  std::condition_variable wake_, done_;
  bool stopping_ = false;
  int64_t n_ = 0, chunks_ = 0, next_ = 0, pending_ = 0;
  RangeBody body_ = nullptr;
  void* context_ = nullptr;
};

int64_t thread_count() {
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    const long value = std::strtol(text, nullptr, 10);
    if (value > 0) return value;
  }
  const unsigned cores = std::thread::hardware_concurrency();
  return cores ? static_cast<int64_t>(cores) : 1;
}

void run_in_pool(int64_t n, int64_t grain, RangeBody body, void* context) {
  static Pool pool(thread_count());
  pool.run(n, grain, body, context);
}

std::atomic<ParallelBackend> backend{run_in_pool};

}  // namespace

void set_parallel_backend(ParallelBackend chosen) { backend.store(chosen); }

void run_parallel(int64_t n, int64_t grain, RangeBody body, void* context) { backend.load()(n, grain, body, context); }

}  // namespace detc
