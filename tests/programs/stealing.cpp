// oneTBB: ranges split and stolen, reductions, sort, a pipeline, a concurrent map, spinning and queueing locks.
//
// Owns deterministic output: integers only. Must not know hosts.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <oneapi/tbb.h>
#include <vector>

namespace {

constexpr std::size_t count = 300'000;

std::uint64_t mix(std::uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull;
    value ^= value >> 33;
    return value;
}

std::uint64_t uneven() {
    using range = tbb::blocked_range<std::uint64_t>;
    return tbb::parallel_reduce(
        range(0, 2000, 4), std::uint64_t{0},
        [](const range &part, std::uint64_t sum) {
            for (auto i = part.begin(); i != part.end(); ++i) {
                std::uint64_t value = i;
                for (std::uint64_t step = 0; step < i * 40; ++step) value = mix(value + step);
                sum += value;
            }
            return sum;
        },
        [](std::uint64_t left, std::uint64_t right) { return left + right; });
}

std::uint64_t pipeline() {
    std::uint64_t given = 0, sum = 0;
    tbb::parallel_pipeline(
        8, tbb::make_filter<void, std::uint64_t>(tbb::filter_mode::serial_in_order,
                                                 [&](tbb::flow_control &flow) {
                                                     if (given == 400) flow.stop();
                                                     return given++;
                                                 }) &
               tbb::make_filter<std::uint64_t, std::uint64_t>(tbb::filter_mode::parallel,
                                                              [](std::uint64_t value) {
                                                                  for (int step = 0; step < 20000; ++step) value = mix(value + step);
                                                                  return value;
                                                              }) &
               tbb::make_filter<std::uint64_t, void>(tbb::filter_mode::serial_in_order,
                                                     [&](std::uint64_t value) { sum = mix(sum + value); }));
    return sum;
}

template <class Lock> std::uint64_t locked() {
    Lock lock;
    std::uint64_t sum = 0;
    tbb::parallel_for(std::uint64_t{0}, std::uint64_t{400}, [&](std::uint64_t i) {
        std::uint64_t value = i;
        for (int step = 0; step < 10000; ++step) value = mix(value + step);
        typename Lock::scoped_lock guard(lock);
        sum += value;
    });
    return sum;
}

std::uint64_t words() {
    tbb::concurrent_hash_map<std::uint64_t, std::uint64_t> map;
    tbb::parallel_for(std::uint64_t{0}, std::uint64_t{20'000}, [&](std::uint64_t i) {
        decltype(map)::accessor entry;
        map.insert(entry, mix(i) % 257);
        entry->second += i;
    });
    std::uint64_t sum = 0;
    for (const auto &[key, value] : map) sum += key * value;
    return sum;
}

} // namespace

int main() {
    tbb::global_control width(tbb::global_control::max_allowed_parallelism, 6);
    tbb::task_arena arena(6);
    arena.execute([] {
        std::vector<std::uint64_t> values(count);
        tbb::parallel_for(std::size_t{0}, count, [&](std::size_t i) { values[i] = mix(i) % 1'000'000; });
        tbb::parallel_sort(values);
        std::uint64_t digest = 0;
        for (std::uint64_t value : values) digest = mix(digest + value);
        std::atomic<std::uint64_t> leaves = 0;
        tbb::task_group group;
        for (int i = 0; i < 200; ++i)
            group.run([&, i] { leaves += mix(i) % 100; });
        group.wait();
        std::printf("sorted %016llx\nuneven %016llx\npipeline %016llx\n", (unsigned long long)digest,
                    (unsigned long long)uneven(), (unsigned long long)pipeline());
        std::printf("spin %016llx queue %016llx\n", (unsigned long long)locked<tbb::spin_mutex>(),
                    (unsigned long long)locked<tbb::queuing_mutex>());
        std::printf("words %016llx leaves %llu\n", (unsigned long long)words(), (unsigned long long)leaves.load());
    });
}
