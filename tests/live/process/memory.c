// Anonymous memory: mapping, protection, forgetting, moving and growing it while threads on other hosts look.
#include "check.h"
#include <setjmp.h>
#include <malloc.h>

static sigjmp_buf place;
static char *volatile area;

static void jump(int signal)
{
    siglongjmp(place, signal);
}

static const char *touch(volatile char *address, bool writes)
{
    catch_signal(SIGSEGV, jump, 0);
    catch_signal(SIGBUS, jump, 0);
    int signal = sigsetjmp(place, 1);
    if (signal != 0)
        return sigabbrev_np(signal);
    if (writes)
        *address = 1;
    else
        (void)*address;
    return "ok";
}

#define READS(ADDRESS) say("read %s: %s\n", #ADDRESS, touch(ADDRESS, false))
#define WRITES(ADDRESS) say("write %s: %s\n", #ADDRESS, touch(ADDRESS, true))

static long sum(const char *bytes, size_t count)
{
    long total = 0;
    for (size_t at = 0; at < count; at++)
        total += (unsigned char)bytes[at];
    return total;
}

BEHAVIOUR(fresh_memory_is_zero)
{
    area = map(64 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { SHOW(sum(area, 64 * PAGE)); });
    SHOW(sum(area, 64 * PAGE));
}

BEHAVIOUR(writes_are_seen_everywhere)
{
    area = map(16 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memset(area, 1, 16 * PAGE); });
    ON(2, { SHOW(sum(area, 16 * PAGE)); memset(area, 2, 8 * PAGE); });
    SHOW(sum(area, 16 * PAGE));
}

BEHAVIOUR(split_words_over_two_pages)
{
    area = map(2 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { *(uint64_t *)(area + PAGE - 3) = 0x1122334455667788; });
    ON(2, { YES(*(uint64_t *)(area + PAGE - 3) == 0x1122334455667788); });
}

BEHAVIOUR(protect_down_on_all_hosts)
{
    area = map(3 * PAGE, PROT_READ | PROT_WRITE, 0);
    memset(area, 1, 3 * PAGE);
    ON(1, { WRITES(area + PAGE); });
    ON(2, { WRITES(area + PAGE); });
    TRY(mprotect(area + PAGE, PAGE, PROT_READ));
    ON(1, { READS(area + PAGE); WRITES(area + PAGE); WRITES(area); WRITES(area + 2 * PAGE); });
    ON(2, { READS(area + PAGE); WRITES(area + PAGE); });
    ON(2, { TRY(mprotect(area + PAGE, PAGE, PROT_NONE)); });
    ON(1, { READS(area + PAGE); });
    READS(area + PAGE);
}

BEHAVIOUR(protect_up_on_all_hosts)
{
    area = map(2 * PAGE, PROT_NONE, 0);
    ON(1, { READS(area); });
    ON(2, { TRY(mprotect(area, PAGE, PROT_READ)); READS(area); WRITES(area); });
    ON(1, { READS(area); WRITES(area); });
    TRY(mprotect(area, PAGE, PROT_READ | PROT_WRITE));
    ON(1, { WRITES(area); READS(area + PAGE); });
    WRITES(area);
}

BEHAVIOUR(protection_keeps_content)
{
    area = map(PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memset(area, 7, PAGE); });
    mprotect(area, PAGE, PROT_NONE);
    mprotect(area, PAGE, PROT_READ);
    ON(2, { SHOW(sum(area, PAGE)); });
}

BEHAVIOUR(write_only_is_readable)
{
    area = map(PAGE, PROT_WRITE, 0);
    ON(1, { WRITES(area); READS(area); });
}

BEHAVIOUR(protect_of_hole_fails)
{
    area = map(3 * PAGE, PROT_READ | PROT_WRITE, 0);
    munmap(area + PAGE, PAGE);
    ON(1, {
        TRY(mprotect(area, 3 * PAGE, PROT_READ));
        TRY(mprotect(area + 1, PAGE, PROT_READ));
        TRY(mprotect(area, PAGE, 0x70));
        TRY(mprotect(area, 0, PROT_READ));
    });
}

BEHAVIOUR(unmap_is_everywhere)
{
    area = map(3 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memset(area, 1, 3 * PAGE); });
    ON(2, { TRY(munmap(area + PAGE, PAGE)); READS(area + PAGE); READS(area); });
    ON(1, { READS(area + PAGE); READS(area + 2 * PAGE); });
    READS(area + PAGE);
    TRY(munmap(area, 3 * PAGE));
    TRY(munmap(area, 3 * PAGE));
    TRY(munmap(area + 1, PAGE));
    TRY(munmap(area, 0));
}

BEHAVIOUR(reuse_is_zero_everywhere)
{
    // Map, fill, unmap, map again at the same place: nobody sees old bytes.
    area = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
    for (int round = 0; round < 10; round++) {
        ON(1, { memset(area, 5, 8 * PAGE); });
        ON(2, { if (sum(area, PAGE) != 5 * PAGE) say("not written\n"); });
        munmap(area, 8 * PAGE);
        if (mmap(area, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != area)
            say("not there\n");
        ON(2, { if (sum(area, 8 * PAGE) != 0) say("old bytes on 2\n"); });
        ON(1, { if (sum(area, 8 * PAGE) != 0) say("old bytes on 1\n"); });
    }
    say("done\n");
}

BEHAVIOUR(map_and_unmap_while_others_run)
{
    static _Atomic bool is_over;
    void *body(void *argument)
    {
        for (int round = 0; round < 40; round++) {
            char *own = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
            if (own == MAP_FAILED || sum(own, 4 * PAGE) != 0)
                say("not fresh\n");
            memset(own, 9, 4 * PAGE);
            if (sum(own, 4 * PAGE) != 9L * 4 * PAGE)
                say("not kept\n");
            munmap(own, 4 * PAGE);
        }
        return argument;
    }
    on_each(4, body);
    is_over = true;
    YES(is_over);
}

BEHAVIOUR(fixed_replaces)
{
    area = map(3 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memset(area, 3, 3 * PAGE); });
    ON(2, { YES(mmap(area + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == area + PAGE); });
    ON(1, { SHOW(sum(area, 3 * PAGE)); });
}

BEHAVIOUR(fixed_no_replace_refuses)
{
    area = map(2 * PAGE, PROT_READ, 0);
    ON(1, {
        void *result = mmap(area, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        say("%s\n", result == MAP_FAILED ? strerrorname_np(errno) : "mapped");
        munmap(area, PAGE);
        YES(mmap(area, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == area);
    });
}

BEHAVIOUR(hints_never_replace)
{
    area = map(PAGE, PROT_READ | PROT_WRITE, 0);
    area[0] = 42;
    ON(1, { YES(mmap(area, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != area); SHOW(area[0]); });
}

BEHAVIOUR(bad_maps)
{
    ON(1, {
        YES(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
        YES(mmap((void *)1, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED && errno == EINVAL);
        YES(mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
        YES(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0) == MAP_FAILED && errno == EBADF);
        YES(mmap(NULL, -1UL << 12, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
        YES(mmap((void *)-8192L, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED && errno == ENOMEM);
    });
}

BEHAVIOUR(dontneed_zeroes_for_all)
{
    area = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memset(area, 1, 8 * PAGE); });
    ON(2, { SHOW(sum(area, 8 * PAGE)); TRY(madvise(area + 2 * PAGE, 3 * PAGE, MADV_DONTNEED)); SHOW(sum(area, 8 * PAGE)); });
    ON(1, { SHOW(sum(area, 8 * PAGE)); });
    SHOW(sum(area, 8 * PAGE));
}

BEHAVIOUR(dontneed_while_others_write)
{
    static _Atomic bool is_over;
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    pthread_t writer = START(1, { while (!is_over) for (int at = 0; at < 4; at++) area[at * PAGE + 7]++; });
    ON(2, { for (int at = 0; at < 50; at++) madvise(area, 4 * PAGE, MADV_DONTNEED); });
    is_over = true;
    join(writer);
    madvise(area, 4 * PAGE, MADV_DONTNEED);
    SHOW(sum(area, 4 * PAGE));
}

BEHAVIOUR(advice_is_accepted)
{
    area = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, {
        int advices[] = {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_DODUMP, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE};
        for (size_t at = 0; at < sizeof advices / sizeof *advices; at++)
            say("%d: %s\n", advices[at], outcome(madvise(area, 8 * PAGE, advices[at])));
        TRY(madvise(area, PAGE, 9999));
        TRY(madvise(area + 1, PAGE, MADV_NORMAL));
        TRY(posix_madvise(area, PAGE, POSIX_MADV_DONTNEED));
    });
}

BEHAVIOUR(free_advice_keeps_what_is_written_after)
{
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memset(area, 1, 4 * PAGE); TRY(madvise(area, 4 * PAGE, MADV_FREE)); area[0] = 9; });
    ON(2, { SHOW(area[0]); });
}

BEHAVIOUR(advice_on_hole)
{
    area = map(3 * PAGE, PROT_READ | PROT_WRITE, 0);
    munmap(area + PAGE, PAGE);
    ON(1, { TRY(madvise(area, 3 * PAGE, MADV_DONTNEED)); TRY(madvise(area + PAGE, PAGE, MADV_WILLNEED)); });
}

BEHAVIOUR(remap_grows)
{
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memset(area, 2, 4 * PAGE); });
    ON(2, {
        char *grown = mremap(area, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
        YES(grown != MAP_FAILED);
        SHOW(sum(grown, 64 * PAGE));
        area = grown;
    });
    ON(1, { SHOW(sum(area, 64 * PAGE)); area[63 * PAGE] = 1; });
    SHOW(sum(area, 64 * PAGE));
}

BEHAVIOUR(remap_shrinks)
{
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    memset(area, 2, 4 * PAGE);
    ON(1, { YES(mremap(area, 4 * PAGE, PAGE, 0) == area); READS(area); READS(area + PAGE); });
    ON(2, { READS(area + 3 * PAGE); });
}

BEHAVIOUR(remap_moves_where_told)
{
    static char *target;
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    target = map(4 * PAGE, PROT_NONE, 0);
    ON(1, { memset(area, 3, 4 * PAGE); });
    ON(2, { YES(mremap(area, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target); });
    ON(1, { SHOW(sum(target, 4 * PAGE)); READS(area); });
}

BEHAVIOUR(remap_without_moving_fails_when_blocked)
{
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { YES(mremap(area, PAGE, 2 * PAGE, 0) == MAP_FAILED && errno == ENOMEM); YES(mremap(area + 1, PAGE, 2 * PAGE, 0) == MAP_FAILED && errno == EINVAL); YES(mremap(area, PAGE, 0, 0) == MAP_FAILED && errno == EINVAL); });
}

BEHAVIOUR(remap_of_large_block_by_realloc)
{
    ON(1, {
        size_t bytes = 1 << 20;
        char *block = malloc(bytes);
        memset(block, 1, bytes);
        for (int round = 0; round < 5; round++) {
            block = realloc(block, bytes * 2);
            memset(block + bytes, 1, bytes);
            bytes *= 2;
        }
        SHOW(sum(block, bytes) == (long)bytes);
        free(block);
    });
}

BEHAVIOUR(break_grows_and_shrinks)
{
    static char *before;
    ON(1, { free(malloc(1)); });
    before = sbrk(0);
    ON(1, { YES(sbrk(3 * PAGE) == before); memset(before, 4, 3 * PAGE); });
    ON(2, { SHOW(sum(before, 3 * PAGE)); YES(sbrk(-2 * PAGE) == before + 3 * PAGE); });
    YES((char *)sbrk(0) == before + PAGE);
    ON(1, { READS(before); sbrk(2 * PAGE); SHOW(sum(before + PAGE, 2 * PAGE)); });
}

BEHAVIOUR(huge_sparse_mapping)
{
    area = map(1UL << 40, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    YES(area != MAP_FAILED);
    if (area == MAP_FAILED)
        return;
    ON(1, { for (long at = 0; at < 1L << 40; at += 1L << 36) area[at] = 1; });
    ON(2, { long total = 0; for (long at = 0; at < 1L << 40; at += 1L << 36) total += area[at] + area[at + PAGE]; SHOW(total); });
    TRY(munmap(area, 1UL << 40));
}

BEHAVIOUR(reserve_then_commit)
{
    area = map(1UL << 36, PROT_NONE, MAP_NORESERVE);
    YES(area != MAP_FAILED);
    ON(1, { TRY(mprotect(area + (1UL << 35), 16 * PAGE, PROT_READ | PROT_WRITE)); memset(area + (1UL << 35), 1, 16 * PAGE); });
    ON(2, { SHOW(sum(area + (1UL << 35), 16 * PAGE)); READS(area); TRY(madvise(area + (1UL << 35), 16 * PAGE, MADV_DONTNEED)); TRY(mprotect(area + (1UL << 35), 16 * PAGE, PROT_NONE)); });
    ON(1, { READS(area + (1UL << 35)); });
}

BEHAVIOUR(shared_anonymous_memory)
{
    area = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    YES(area != MAP_FAILED);
    ON(1, { memset(area, 6, 4 * PAGE); });
    ON(2, { SHOW(sum(area, 4 * PAGE)); });
}

BEHAVIOUR(dontneed_of_shared_anonymous_keeps)
{
    area = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ON(1, { memset(area, 6, PAGE); TRY(madvise(area, PAGE, MADV_DONTNEED)); SHOW(area[9]); });
}

BEHAVIOUR(stack_flag_and_growsdown)
{
    ON(1, { YES(map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_STACK) != MAP_FAILED); YES(map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_GROWSDOWN) != MAP_FAILED); YES(map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_POPULATE) != MAP_FAILED); YES(map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_LOCKED) != MAP_FAILED); });
}

BEHAVIOUR(code_made_on_one_host_runs_on_another)
{
    area = map(PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memcpy(area, "\xb8\x2a\x00\x00\x00\xc3", 6); TRY(mprotect(area, PAGE, PROT_READ | PROT_EXEC)); SHOW(((int (*)(void))area)()); });
    ON(2, { SHOW(((int (*)(void))area)()); });
    SHOW(((int (*)(void))area)());
}

BEHAVIOUR(code_changed_while_it_runs_elsewhere)
{
    // As JIT compilers do: writable and executable by turns.
    area = map(PAGE, PROT_READ | PROT_WRITE, 0);
    memcpy(area, "\xb8\x00\x00\x00\x00\xc3", 6);
    for (int round = 1; round <= 5; round++) {
        mprotect(area, PAGE, PROT_READ | PROT_WRITE);
        area[1] = round;
        mprotect(area, PAGE, PROT_READ | PROT_EXEC);
        ON(1, { SHOW(((int (*)(void))area)()); });
        ON(2, { SHOW(((int (*)(void))area)()); });
    }
}

BEHAVIOUR(code_in_writable_executable_memory)
{
    area = map(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, 0);
    for (int round = 1; round <= 5; round++) {
        ON(1, { memcpy(area, "\xb8\x00\x00\x00\x00\xc3", 6); });
        area[1] = round;
        ON(2, { SHOW(((int (*)(void))area)()); });
    }
}

BEHAVIOUR(lock_calls)
{
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { TRY(mlock(area, 4 * PAGE)); TRY(munlock(area, 4 * PAGE)); TRY(syscall(SYS_mlock2, area, PAGE, 1)); TRY(mlockall(MCL_CURRENT)); TRY(munlockall()); });
    munmap(area + PAGE, PAGE);
    TRY(mlock(area, 3 * PAGE));
}

BEHAVIOUR(residency_of_touched_pages)
{
    static unsigned char pages[4];
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { area[PAGE] = 1; });
    long result = mincore(area, 4 * PAGE, pages);
    say("mincore: %s\n", outcome(result));
    if (result == 0)
        SHOW(pages[1] & 1);
}

BEHAVIOUR(synchronising_anonymous_memory)
{
    area = map(2 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { TRY(msync(area, PAGE, MS_SYNC)); TRY(msync(area, PAGE, MS_ASYNC)); TRY(msync(area + 1, PAGE, MS_SYNC)); TRY(msync(area, PAGE, MS_SYNC | MS_ASYNC)); });
    munmap(area, PAGE);
    TRY(msync(area, PAGE, MS_SYNC));
}

BEHAVIOUR(trim_gives_back)
{
    ON(1, { char *block = malloc(4 << 20); memset(block, 1, 4 << 20); free(block); SHOW(malloc_trim(0) >= 0); block = calloc(1, 4 << 20); SHOW(sum(block, 4 << 20)); });
}

BEHAVIOUR(aligned_allocations)
{
    ON(1, { void *block; PTHREAD(posix_memalign(&block, 1 << 16, 100)); YES(((uintptr_t)block & 0xffff) == 0); YES(((uintptr_t)aligned_alloc(4096, 8192) & 4095) == 0); });
}

BEHAVIOUR(thread_stacks_are_reused_clean)
{
    for (int round = 0; round < 10; round++)
        ON(round + 1, { volatile char big[20000]; long nonzero = 0; for (int at = 0; at < 20000; at++) big[at] = at; for (int at = 0; at < 20000; at++) nonzero += big[at] != (char)at; if (nonzero) say("lost\n"); });
    say("done\n");
}

BEHAVIOUR(large_fill_by_three_hosts)
{
    area = map(12 << 20, PROT_READ | PROT_WRITE, 0);
    void *body(void *argument)
    {
        size_t own = (uintptr_t)argument;
        for (size_t at = own * PAGE; at < 12 << 20; at += 3 * PAGE)
            memset(area + at, own + 1, PAGE);
        return argument;
    }
    on_each(3, body);
    SHOW(sum(area, 12 << 20));
    ON(1, { SHOW(sum(area, 12 << 20)); });
}

BEHAVIOUR(kernel_writes_into_pages_held_elsewhere)
{
    static int file;
    area = map(16 * PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { memset(area, 1, 16 * PAGE); });
    file = file_with("ones", area, 16 * PAGE);
    ON(2, { SHOW(pread(file, area, 16 * PAGE, 0)); SHOW(sum(area, 16 * PAGE)); memset(area, 0, 16 * PAGE); });
    ON(1, { SHOW(pread(file, area + 1, 8 * PAGE, 3)); SHOW(sum(area, 16 * PAGE)); });
}

BEHAVIOUR(uninitialised_data_is_zero)
{
    static char zeros[100000];
    ON(1, { SHOW(sum(zeros, sizeof zeros)); zeros[50000] = 1; });
    ON(2, { SHOW(sum(zeros, sizeof zeros)); });
}
