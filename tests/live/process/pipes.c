// Pipes, event counters, and moving bytes within the kernel.
#include "check.h"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

static int ends[2];
static int second[2];
static char bytes[1 << 17];

BEHAVIOUR(pipe_between_hosts)
{
    TRY(pipe(ends));
    pthread_t reader = START(1, { long total = 0; long count; while ((count = read(ends[0], bytes, sizeof bytes)) > 0) total += count; SHOW(total); });
    pthread_t writer = START(2, { static char block[10000]; for (int at = 0; at < 50; at++) write(ends[1], block, sizeof block); close(ends[1]); });
    join(writer);
    join(reader);
}

BEHAVIOUR(pipe_end_of_file)
{
    pipe(ends);
    close(ends[1]);
    ON(1, { SHOW(read(ends[0], bytes, 1)); });
}

BEHAVIOUR(pipe_nonblocking)
{
    TRY(pipe2(ends, O_NONBLOCK | O_CLOEXEC));
    ON(1, { TRY(read(ends[0], bytes, 1)); SHOW(write(ends[1], bytes, sizeof bytes)); TRY(write(ends[1], bytes, 1)); SHOW(fcntl(ends[0], F_GETFD)); });
    TRY(pipe2(ends, 12345));
}

BEHAVIOUR(pipe_small_writes_stay_whole)
{
    pipe(ends);
    void *body(void *argument)
    {
        char block[512];
        memset(block, 'a' + (int)(uintptr_t)argument, sizeof block);
        for (int at = 0; at < 20; at++)
            write(ends[1], block, sizeof block);
        return argument;
    }
    pthread_t reader = START(2, {
        int torn = 0;
        for (int at = 0; at < 60; at++) {
            static char block[512];
            size_t have = 0;
            while (have < sizeof block)
                have += read(ends[0], block + have, sizeof block - have);
            for (size_t byte = 1; byte < sizeof block; byte++)
                torn += block[byte] != block[0];
        }
        SHOW(torn);
    });
    on_each(3, body);
    join(reader);
}

BEHAVIOUR(pipe_size)
{
    pipe(ends);
    ON(1, { SHOW(fcntl(ends[0], F_GETPIPE_SZ)); SHOW(fcntl(ends[1], F_SETPIPE_SZ, 8192)); });
}

BEHAVIOUR(packet_pipe)
{
    TRY(pipe2(ends, O_DIRECT));
    ON(1, { write(ends[1], "abc", 3); write(ends[1], "de", 2); });
    ON(2, { SHOW(read(ends[0], bytes, 100)); SHOW(read(ends[0], bytes, 100)); });
}

BEHAVIOUR(named_pipe_between_hosts)
{
    TRY(mkfifo("fifo", 0600));
    pthread_t reader = START(1, { int end = open("fifo", O_RDONLY); SHOW(read(end, bytes, 10)); });
    pthread_t writer = START(2, { int end = open("fifo", O_WRONLY); write(end, "hello", 5); });
    join(writer);
    join(reader);
}

BEHAVIOUR(blocked_writer_goes_on)
{
    static _Atomic bool is_written;
    pipe(ends);
    write(ends[1], bytes, 65536);
    pthread_t writer = START(1, { SHOW(write(ends[1], bytes, 10)); is_written = true; });
    ms(30);
    YES(!is_written);
    ON(2, { read(ends[0], bytes, 8192); });
    join(writer);
}

BEHAVIOUR(event_counter_adds)
{
    ends[0] = eventfd(3, EFD_NONBLOCK);
    ON(1, { uint64_t value = 4; SHOW(write(ends[0], &value, 8)); });
    ON(2, { uint64_t value = 0; SHOW(read(ends[0], &value, 8)); SHOW(value); TRY(read(ends[0], &value, 8)); TRY(read(ends[0], &value, 4)); value = -1; TRY(write(ends[0], &value, 8)); });
}

BEHAVIOUR(event_counter_wakes)
{
    ends[0] = eventfd(0, 0);
    pthread_t reader = START(1, { uint64_t value; read(ends[0], &value, 8); SHOW(value); });
    ms(30);
    ON(2, { eventfd_write(ends[0], 9); });
    join(reader);
}

BEHAVIOUR(event_semaphore)
{
    ends[0] = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    ON(1, { uint64_t value; read(ends[0], &value, 8); SHOW(value); });
    ON(2, { uint64_t value; read(ends[0], &value, 8); SHOW(value); TRY(read(ends[0], &value, 8)); });
}

BEHAVIOUR(splice_from_file_to_pipe)
{
    static int file;
    file = file_with("f", "0123456789", 10);
    pipe(ends);
    ON(1, { loff_t offset = 2; SHOW(splice(file, &offset, ends[1], NULL, 6, 0)); SHOW(offset); });
    ON(2, { SHOW(read(ends[0], bytes, 10)); say("%.6s\n", bytes); });
    TRY(splice(file, NULL, 1, NULL, 1, 0));
}

BEHAVIOUR(splice_from_pipe_to_file)
{
    static int file;
    file = file_with("f", "", 0);
    pipe(ends);
    write(ends[1], "abcdef", 6);
    ON(1, { SHOW(splice(ends[0], NULL, file, NULL, 6, SPLICE_F_MOVE)); });
    pread(file, bytes, 6, 0);
    say("%.6s\n", bytes);
}

BEHAVIOUR(tee_copies)
{
    pipe(ends);
    pipe(second);
    ON(1, { write(ends[1], "abc", 3); SHOW(tee(ends[0], second[1], 10, 0)); });
    ON(2, { SHOW(read(ends[0], bytes, 10)); SHOW(read(second[0], bytes, 10)); });
}

BEHAVIOUR(vmsplice_gives_pages)
{
    pipe(ends);
    ON(1, { struct iovec part = {"abc", 3}; long result = vmsplice(ends[1], &part, 1, 0); say("vmsplice: %s\n", outcome(result)); });
}

BEHAVIOUR(writer_sees_reader_go)
{
    pipe(ends);
    signal(SIGPIPE, SIG_IGN);
    pthread_t writer = START(1, { long result; while ((result = write(ends[1], bytes, sizeof bytes)) > 0) { } say("%s\n", strerrorname_np(errno)); });
    ms(30);
    ON(2, { close(ends[0]); });
    join(writer);
}
