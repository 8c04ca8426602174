// Calls that cannot hold over several hosts. Natively they do what they do; refused, they fail by name.
#include "check.h"
#include <linux/futex.h>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/sem.h>
#include <sys/msg.h>
#include <sys/uio.h>

// One call on a member: "name: ok", or the error.
#define CALL(NAME, CALLED, ...) \
    BEHAVIOUR(NAME) { ON(1, { long result = syscall(__VA_ARGS__); say("%s: %s\n", CALLED, outcome(result)); }); }

static char words[4096] __attribute__((aligned(4096)));
static struct iovec part = {words, 16};
static uint64_t filter_set[8];
static uint32_t numbers[64];

CALL(io_uring_setup, "io_uring_setup", 425, 4, words)
CALL(io_uring_enter, "io_uring_enter", 426, 0, 0, 0, 0, 0, 0)
CALL(io_setup, "io_setup", SYS_io_setup, 4, filter_set)
CALL(ptrace, "ptrace", SYS_ptrace, PTRACE_ATTACH, getpid(), 0, 0)
CALL(process_vm_readv, "process_vm_readv", SYS_process_vm_readv, getpid(), &part, 1, &part, 1, 0)
CALL(process_vm_writev, "process_vm_writev", SYS_process_vm_writev, getpid(), &part, 1, &part, 1, 0)
CALL(userfaultfd, "userfaultfd", SYS_userfaultfd, 0)
CALL(seccomp, "seccomp", SYS_seccomp, 2, 0, numbers)
CALL(bpf, "bpf", SYS_bpf, 0, words, 64)
CALL(perf_event_open, "perf_event_open", SYS_perf_event_open, words, 0, -1, -1, 0)
CALL(modify_ldt, "modify_ldt", SYS_modify_ldt, 0, words, 64)
CALL(set_gs, "arch_prctl", SYS_arch_prctl, 0x1001, words)
CALL(personality_change, "personality", SYS_personality, 0x40000)
CALL(unshare_namespace, "unshare", SYS_unshare, 0x04000000)
CALL(memfd_secret, "memfd_secret", 447, 0)
CALL(pkey_alloc, "pkey_alloc", 330, 0, 0)
CALL(shmget, "shmget", SYS_shmget, IPC_PRIVATE, 4096, 0600 | IPC_CREAT)
CALL(kcmp, "kcmp", SYS_kcmp, getpid(), getpid(), 0, 0, 0)
CALL(process_madvise, "process_madvise", 440, -1, &part, 1, 20, 0)
CALL(remap_file_pages, "remap_file_pages", SYS_remap_file_pages, words, 4096, 0, 0, 0)
CALL(move_pages, "move_pages", SYS_move_pages, 0, 0, NULL, NULL, NULL, 0)
CALL(iopl, "iopl", SYS_iopl, 0)
CALL(dispatch_by_user, "prctl", SYS_prctl, 59, 0, 0, 0, 0)
CALL(seccomp_by_prctl, "prctl", SYS_prctl, 22, 2, words, 0, 0)
CALL(unknown_number, "number 999", 999)
CALL(unknown_large_number, "number 100000", 100000)
CALL(obsolete_number, "create_module", 174)

BEHAVIOUR(robust_list_of_thread)
{
    ON(1, { void *head; size_t length; long result = syscall(SYS_get_robust_list, 0, &head, &length); say("get_robust_list: %s\n", outcome(result)); });
}

BEHAVIOUR(restartable_sequences)
{
    // glibc asks at the start of each thread and is content either way.
    ON(1, { YES(sched_getcpu() >= 0); });
}

BEHAVIOUR(memory_policy_is_accepted)
{
    ON(1, { unsigned long nodes = 1; TRY(syscall(SYS_set_mempolicy, 0, NULL, 0)); TRY(syscall(SYS_mbind, words, 4096, 0, NULL, 0, 0)); (void)nodes; });
}

BEHAVIOUR(personality_asked)
{
    ON(1, { SHOW(syscall(SYS_personality, 0xffffffff)); });
}

BEHAVIOUR(fs_base_is_told)
{
    ON(1, { unsigned long base = 0; TRY(syscall(SYS_arch_prctl, 0x1003, &base)); YES(base == (unsigned long)pthread_self()); });
}

BEHAVIOUR(message_queue)
{
    static int queue;
    queue = msgget(IPC_PRIVATE, 0600 | IPC_CREAT);
    YES(queue >= 0);
    ON(1, { struct { long type; char text[8]; } message = {3, "hello"}; TRY(msgsnd(queue, &message, 8, 0)); });
    ON(2, { struct { long type; char text[8]; } message; SHOW(msgrcv(queue, &message, 8, 0, 0)); say("%s\n", message.text); });
    TRY(msgctl(queue, IPC_RMID, NULL));
}

BEHAVIOUR(semaphore_set)
{
    static int set;
    set = semget(IPC_PRIVATE, 2, 0600 | IPC_CREAT);
    YES(set >= 0);
    pthread_t waiter = START(1, { struct sembuf take = {0, -1, 0}; TRY(semop(set, &take, 1)); });
    ms(30);
    ON(2, { struct sembuf give = {0, 1, 0}; semop(set, &give, 1); });
    join(waiter);
    ON(1, { struct sembuf take = {1, -1, 0}; struct timespec limit = {0, 20000000}; TRY(semtimedop(set, &take, 1, &limit)); SHOW(semctl(set, 0, GETVAL)); });
    TRY(semctl(set, 0, IPC_RMID));
}

BEHAVIOUR(posix_message_queue)
{
    static int queue;
    ON(1, { queue = syscall(SYS_mq_open, "dvm-conformance", O_RDWR | O_CREAT, 0600, NULL); say("mq_open: %s\n", outcome(queue)); syscall(SYS_mq_unlink, "dvm-conformance"); });
    if (queue < 0)
        return;
    ON(1, { TRY(syscall(SYS_mq_timedsend, queue, "hello", 5, 2, NULL)); });
    ON(2, { static char text[8192]; unsigned priority; SHOW(syscall(SYS_mq_timedreceive, queue, text, sizeof text, &priority, NULL)); SHOW(priority); });
}

BEHAVIOUR(husk_memory_is_out_of_reach)
{
    // Nothing of the program lies in the upper part of the address space, and nothing can be put there.
    ON(1, { void *wanted = (void *)0x7f0000000000; void *got = mmap(wanted, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); YES(got != MAP_FAILED); TRY(munmap(got, 4096)); });
}
