// C++17 parallel algorithms and C++20 synchronisation: sort, scan, transform_reduce; latch, barrier, semaphore, atomic wait, jthread, async.
//
// Owns deterministic output: integers only. Must not know hosts.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstdio>
#include <execution>
#include <future>
#include <latch>
#include <numeric>
#include <semaphore>
#include <shared_mutex>
#include <thread>
#include <vector>

namespace {

std::uint64_t mix(std::uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull;
    value ^= value >> 33;
    return value;
}

std::uint64_t algorithms() {
    std::vector<std::uint64_t> values(400'000);
    std::iota(values.begin(), values.end(), 0);
    std::for_each(std::execution::par, values.begin(), values.end(), [](std::uint64_t &value) {
        for (int step = 0; step < 200; ++step) value = mix(value + step);
        value %= 1'000'003;
    });
    std::sort(std::execution::par, values.begin(), values.end());
    std::vector<std::uint64_t> sums(values.size());
    std::inclusive_scan(std::execution::par, values.begin(), values.end(), sums.begin());
    const auto last = std::unique(std::execution::par, values.begin(), values.end());
    const auto squares = std::transform_reduce(std::execution::par_unseq, values.begin(), last, std::uint64_t{0}, std::plus<>{},
                                               [](std::uint64_t value) { return value * value; });
    return squares ^ sums.back() ^ sums[sums.size() / 2];
}

std::uint64_t rounds() {
    constexpr int members = 4;
    std::vector<std::uint64_t> cells(members * 2, 1);
    std::uint64_t completions = 0;
    std::barrier meet(members, [&]() noexcept { ++completions; });
    std::latch done(members);
    std::vector<std::jthread> threads;
    for (int me = 0; me < members; ++me)
        threads.emplace_back([&, me] {
            for (int round = 0; round < 60; ++round) {
                const auto *from = &cells[round % 2 * members];
                cells[(round + 1) % 2 * members + me] = mix(from[(me + 1) % members] + me);
                meet.arrive_and_wait();
            }
            done.count_down();
        });
    done.wait();
    return std::accumulate(cells.begin(), cells.begin() + members, completions);
}

/// Turns are passed on by atomic wait and notify, a semaphore lets two in at a time.
std::uint64_t turns() {
    std::atomic<int> turn = 0;
    std::atomic<int> inside = 0, most = 0;
    std::counting_semaphore<2> room(2);
    std::uint64_t chain = 0;
    {
        std::vector<std::jthread> threads;
        for (int me = 0; me < 3; ++me)
            threads.emplace_back([&, me] {
                for (int round = me; round < 90; round += 3) {
                    for (int seen = turn.load(); seen != round; seen = turn.load()) turn.wait(seen);
                    chain = mix(chain + round);
                    turn.store(round + 1);
                    turn.notify_all();
                    room.acquire();
                    const int now = ++inside;
                    for (int seen = most.load(); seen < now && !most.compare_exchange_weak(seen, now);) {}
                    --inside;
                    room.release();
                }
            });
    }
    return chain + (most.load() <= 2 ? 0 : 1);
}

std::uint64_t readers() {
    std::shared_mutex lock;
    std::uint64_t value = 0;
    std::vector<std::future<std::uint64_t>> results;
    for (int me = 0; me < 4; ++me)
        results.push_back(std::async(std::launch::async, [&, me] {
            std::uint64_t before = 0, ordered = 1;
            for (int round = 0; round < 50; ++round) {
                if (round % 10 == me) {
                    std::unique_lock guard(lock);
                    value += me + 1;
                } else {
                    std::shared_lock guard(lock);
                    ordered &= value >= before;
                    before = value;
                }
            }
            return ordered;
        }));
    std::uint64_t ordered = 0;
    for (auto &result : results) ordered += result.get();
    return value * 10 + ordered;
}

} // namespace

int main() {
    std::printf("algorithms %016llx\n", (unsigned long long)algorithms());
    std::printf("rounds %016llx\n", (unsigned long long)rounds());
    std::printf("turns %016llx\n", (unsigned long long)turns());
    std::printf("readers %llu\n", (unsigned long long)readers());
}
