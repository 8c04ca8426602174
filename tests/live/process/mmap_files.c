// Files in memory: private and shared mappings, what happens at their ends, memfds.
#include "check.h"
#include <sys/sendfile.h>

static char *volatile area;
static int file;

// "sequence": each page filled with its number from 1.
static int sequence(int pages)
{
    char page[PAGE];
    int made = open("sequence", O_RDWR | O_CREAT | O_TRUNC, 0644);
    for (int at = 1; at <= pages; at++) {
        memset(page, at, PAGE);
        if (write(made, page, PAGE) != PAGE)
            _exit(97);
    }
    return made;
}

static void *map_file(size_t bytes, int protection, int flags, off_t offset)
{
    return mmap(NULL, bytes, protection, flags, file, offset);
}

BEHAVIOUR(private_reads_file)
{
    file = sequence(8);
    area = map_file(8 * PAGE, PROT_READ, MAP_PRIVATE, 0);
    ON(1, { for (int at = 0; at < 8; at++) SHOW(area[at * PAGE + at]); });
}

BEHAVIOUR(private_writes_stay_private)
{
    file = sequence(4);
    area = map_file(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    ON(1, { area[PAGE] = 77; });
    ON(2, { char byte; SHOW(area[PAGE]); pread(file, &byte, 1, PAGE); SHOW(byte); SHOW(area[PAGE + 1]); });
}

BEHAVIOUR(private_at_offset)
{
    file = sequence(8);
    area = map_file(2 * PAGE, PROT_READ, MAP_PRIVATE, 5 * PAGE);
    ON(1, { SHOW(area[0]); SHOW(area[PAGE]); });
    YES(map_file(PAGE, PROT_READ, MAP_PRIVATE, 100) == MAP_FAILED && errno == EINVAL);
}

BEHAVIOUR(private_outlives_close_and_unlink)
{
    file = sequence(4);
    area = map_file(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    close(file);
    unlink("sequence");
    ON(1, { SHOW(area[3 * PAGE]); });
}

BEHAVIOUR(rest_of_last_page_is_zero)
{
    file = file_with("short", "abc", 3);
    area = map_file(PAGE, PROT_READ, MAP_PRIVATE, 0);
    ON(1, { SHOW(area[2]); SHOW(area[3]); SHOW(area[PAGE - 1]); });
}

BEHAVIOUR(dontneed_of_private_file_reads_again)
{
    file = sequence(2);
    area = map_file(2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    ON(1, { area[0] = 99; area[PAGE] = 99; });
    ON(2, { TRY(madvise(area, PAGE, MADV_DONTNEED)); SHOW(area[0]); SHOW(area[PAGE]); });
}

BEHAVIOUR(large_file_maps_at_once)
{
    file = open("large", O_RDWR | O_CREAT, 0600);
    TRY(ftruncate(file, 4L << 30));
    pwrite(file, "x", 1, 3L << 30);
    long begin = now_ms();
    area = map_file(4UL << 30, PROT_READ, MAP_PRIVATE, 0);
    YES(area != MAP_FAILED);
    ON(1, { SHOW(area[3L << 30]); SHOW(area[1L << 30]); });
    YES(now_ms() - begin < 3000);
}

BEHAVIOUR(shared_read_only)
{
    file = sequence(4);
    area = map_file(4 * PAGE, PROT_READ, MAP_SHARED, 0);
    YES(area != MAP_FAILED);
    ON(1, { SHOW(area[2 * PAGE]); });
    ON(2, { SHOW(area[3 * PAGE]); });
}

BEHAVIOUR(shared_read_only_sees_later_writes)
{
    file = sequence(2);
    area = map_file(2 * PAGE, PROT_READ, MAP_SHARED, 0);
    ON(1, { SHOW(area[0]); });
    pwrite(file, "Z", 1, 0);
    ON(1, { SHOW(area[0]); });
    ON(2, { SHOW(area[0]); });
}

BEHAVIOUR(shared_writable)
{
    file = sequence(2);
    ON(1, {
        area = map_file(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
        say("mmap: %s\n", area == MAP_FAILED ? strerrorname_np(errno) : "ok");
        if (area != MAP_FAILED)
            area[0] = 55;
    });
}

BEHAVIOUR(shared_writable_of_read_only_file)
{
    close(sequence(1));
    file = open("sequence", O_RDONLY);
    ON(1, { YES(map_file(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0) == MAP_FAILED && errno == EACCES); YES(map_file(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0) != MAP_FAILED); });
    file = open("sequence", O_WRONLY);
    YES(map_file(PAGE, PROT_READ, MAP_PRIVATE, 0) == MAP_FAILED && errno == EACCES);
}

BEHAVIOUR(shared_memory_object)
{
    ON(1, {
        file = shm_open("/dvm-conformance", O_RDWR | O_CREAT, 0600);
        ftruncate(file, PAGE);
        area = map_file(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
        say("mmap: %s\n", area == MAP_FAILED ? strerrorname_np(errno) : "ok");
        shm_unlink("/dvm-conformance");
    });
}

BEHAVIOUR(memory_file_shared)
{
    ON(1, {
        file = memfd_create("own", MFD_CLOEXEC);
        ftruncate(file, PAGE);
        area = map_file(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0);
        say("mmap: %s\n", area == MAP_FAILED ? strerrorname_np(errno) : "ok");
    });
}

BEHAVIOUR(memory_file_reads_and_writes)
{
    file = memfd_create("own", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ON(1, { TRY(ftruncate(file, 2 * PAGE)); SHOW(pwrite(file, "hello", 6, PAGE)); });
    ON(2, { char text[6]; SHOW(pread(file, text, 6, PAGE)); say("%s\n", text); TRY(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK)); TRY(ftruncate(file, 0)); SHOW(fcntl(file, F_GET_SEALS)); });
    area = map_file(2 * PAGE, PROT_READ, MAP_PRIVATE, 0);
    ON(1, { say("%s\n", area + PAGE); });
}

BEHAVIOUR(device_zero)
{
    file = open("/dev/zero", O_RDWR);
    area = map_file(2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    YES(area != MAP_FAILED);
    ON(1, { SHOW(area[5]); area[5] = 1; });
    ON(2, { SHOW(area[5]); });
}

BEHAVIOUR(pipe_cannot_be_mapped)
{
    static int ends[2];
    pipe(ends);
    file = ends[0];
    ON(1, { YES(map_file(PAGE, PROT_READ, MAP_PRIVATE, 0) == MAP_FAILED); say("%s\n", strerrorname_np(errno)); });
}

BEHAVIOUR(directory_cannot_be_mapped)
{
    file = open(".", O_RDONLY);
    ON(1, { YES(map_file(PAGE, PROT_READ, MAP_PRIVATE, 0) == MAP_FAILED); say("%s\n", strerrorname_np(errno)); });
}

BEHAVIOUR(executable_mapping_of_file)
{
    file = file_with("code", "\xb8\x07\x00\x00\x00\xc3", 6);
    area = map_file(PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, 0);
    ON(1, { SHOW(((int (*)(void))area)()); });
    ON(2, { SHOW(((int (*)(void))area)()); });
}

BEHAVIOUR(fixed_file_over_anonymous)
{
    // As loaders do: reserve, then put the pieces.
    file = sequence(4);
    area = map(8 * PAGE, PROT_NONE, 0);
    ON(1, {
        YES(mmap(area, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0) == area);
        YES(mmap(area + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file, 3 * PAGE) == area + 4 * PAGE);
    });
    ON(2, { SHOW(area[PAGE]); SHOW(area[4 * PAGE]); });
}

BEHAVIOUR(synchronising_file_memory)
{
    file = sequence(2);
    area = map_file(2 * PAGE, PROT_READ, MAP_SHARED, 0);
    ON(1, { TRY(msync(area, 2 * PAGE, MS_SYNC)); TRY(madvise(area, 2 * PAGE, MADV_WILLNEED)); });
}

BEHAVIOUR(mapping_of_truncated_file)
{
    file = sequence(4);
    ftruncate(file, PAGE);
    area = map_file(PAGE, PROT_READ, MAP_PRIVATE, 0);
    ON(1, { SHOW(area[0]); });
}

BEHAVIOUR(remap_of_private_file)
{
    file = sequence(4);
    area = map_file(2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0);
    ON(1, { area[PAGE] = 50; area = mremap(area, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE); YES(area != MAP_FAILED); });
    ON(2, { SHOW(area[0]); SHOW(area[PAGE]); SHOW(area[3 * PAGE]); });
}

BEHAVIOUR(write_from_mapped_file)
{
    file = sequence(4);
    area = map_file(4 * PAGE, PROT_READ, MAP_PRIVATE, 0);
    ON(1, { int copy = open("copy", O_RDWR | O_CREAT, 0600); SHOW(write(copy, area, 4 * PAGE)); char byte; pread(copy, &byte, 1, 3 * PAGE); SHOW(byte); });
}
