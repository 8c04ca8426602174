// Boost.Thread: groups, barriers, upgradable locks, futures with continuations, interruption, thread-specific pointers, queues, an executor.
//
// Owns deterministic output: integers only. Must not know hosts.
#define BOOST_THREAD_VERSION 4
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/lockfree/queue.hpp>
#include <boost/thread.hpp>
#include <boost/thread/barrier.hpp>
#include <boost/thread/future.hpp>
#include <boost/thread/sync_bounded_queue.hpp>
#include <cstdint>
#include <cstdio>

namespace {

std::uint64_t mix(std::uint64_t value) {
    for (int step = 0; step < 60000; ++step) {
        value ^= value >> 33;
        value = value * 0xff51afd7ed558ccdull + step;
    }
    return value;
}

std::atomic<int> ended{0};
boost::thread_specific_ptr<int> own([](int *value) {
    ended += *value;
    delete value;
});

std::uint64_t group() {
    constexpr int members = 4;
    boost::barrier meet(members);
    boost::upgrade_mutex lock;
    std::uint64_t cells[2][members] = {{1, 2, 3, 4}}, changes = 0;
    boost::thread_group threads;
    for (int me = 0; me < members; ++me)
        threads.create_thread([&, me] {
            own.reset(new int(me + 1));
            for (int round = 0; round < 40; ++round) {
                cells[(round + 1) % 2][me] = mix(cells[round % 2][(me + 1) % members]);
                boost::upgrade_lock<boost::upgrade_mutex> reading(lock);
                if (round % 4 == me) {
                    boost::upgrade_to_unique_lock<boost::upgrade_mutex> writing(reading);
                    changes += round;
                }
                reading.unlock();
                meet.wait();
            }
        });
    threads.join_all();
    return cells[0][0] ^ cells[0][3] ^ changes;
}

std::uint64_t queues() {
    boost::sync_bounded_queue<std::uint64_t> bounded(4);
    boost::lockfree::queue<std::uint64_t> free_of_locks(256);
    boost::thread producer([&] {
        for (std::uint64_t i = 0; i < 200; ++i) bounded.push_back(i);
        bounded.close();
    });
    boost::thread_group middle;
    for (int i = 0; i < 2; ++i)
        middle.create_thread([&] {
            std::uint64_t value = 0;
            while (bounded.wait_pull_front(value) == boost::queue_op_status::success)
                while (!free_of_locks.push(mix(value))) boost::this_thread::yield();
        });
    producer.join();
    middle.join_all();
    std::uint64_t sum = 0, value = 0;
    while (free_of_locks.pop(value)) sum += value;
    return sum;
}

std::uint64_t futures() {
    auto chain = boost::async(boost::launch::async, [] { return mix(1); }).then([](auto before) { return mix(before.get()); });
    auto other = boost::async(boost::launch::async, [] { return mix(7); });
    return chain.get() ^ other.get();
}

bool interrupted() {
    std::atomic<bool> seen{false};
    boost::thread sleeper([&] {
        try {
            boost::this_thread::sleep_for(boost::chrono::seconds(60));
        } catch (const boost::thread_interrupted &) {
            seen = true;
        }
    });
    sleeper.interrupt();
    sleeper.join();
    return seen;
}

std::uint64_t pool() {
    boost::asio::thread_pool workers(4);
    std::atomic<std::uint64_t> sum{0};
    for (std::uint64_t i = 0; i < 200; ++i) boost::asio::post(workers, [&, i] { sum += mix(i); });
    workers.join();
    return sum;
}

} // namespace

int main() {
    std::printf("group %016llx\n", (unsigned long long)group());
    std::printf("ended %d\n", ended.load());
    std::printf("queues %016llx\n", (unsigned long long)queues());
    std::printf("futures %016llx interrupted %d\n", (unsigned long long)futures(), interrupted());
    std::printf("pool %016llx\n", (unsigned long long)pool());
}
