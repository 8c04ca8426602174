// Faults: handlers on the host where they happen, what they are told, and what they may change.
#include "check.h"
#include <setjmp.h>
#include <ucontext.h>

static sigjmp_buf place;
static char *volatile target;
static volatile int code;
static volatile int number;
static char *volatile address;

static const char *code_name(void)
{
    switch (number << 8 | code) {
    case SIGSEGV << 8 | SEGV_MAPERR: return "SEGV_MAPERR";
    case SIGSEGV << 8 | SEGV_ACCERR: return "SEGV_ACCERR";
    case SIGBUS << 8 | BUS_ADRERR: return "BUS_ADRERR";
    case SIGBUS << 8 | BUS_ADRALN: return "BUS_ADRALN";
    case SIGFPE << 8 | FPE_INTDIV: return "FPE_INTDIV";
    case SIGILL << 8 | ILL_ILLOPN: return "ILL_ILLOPN";
    case SIGTRAP << 8 | TRAP_BRKPT: return "TRAP_BRKPT";
    case SIGTRAP << 8 | SI_KERNEL: return "SI_KERNEL";
    case SIGSEGV << 8 | SI_KERNEL: return "SI_KERNEL";
    default: return "other";
    }
}

static void jump(int signal, siginfo_t *info, void *context)
{
    (void)context;
    number = signal;
    code = info->si_code;
    address = info->si_addr;
    siglongjmp(place, 1);
}

// Executes a statement that faults; says what the handler was told.
#define FAULTS(STATEMENT)                                                                                                        \
    do {                                                                                                                         \
        if (sigsetjmp(place, 1) == 0) {                                                                                          \
            STATEMENT;                                                                                                           \
            say("%s: no fault\n", #STATEMENT);                                                                                   \
        } else {                                                                                                                 \
            say("%s: %s %s at target %s\n", #STATEMENT, sigabbrev_np(number), code_name(), address == target ? "yes" : "no"); \
        }                                                                                                                        \
    } while (0)

static void catch_all(void)
{
    int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int at = 0; at < 5; at++)
        catch_info(all[at], jump, SA_ONSTACK);
}

BEHAVIOUR(null_read_and_write)
{
    catch_all();
    target = NULL;
    ON(1, { FAULTS((void)*(volatile char *)target); FAULTS(*(volatile char *)target = 1); });
    FAULTS(*(volatile char *)target = 1);
}

BEHAVIOUR(unmapped_address)
{
    catch_all();
    target = map(PAGE, PROT_READ | PROT_WRITE, 0);
    munmap(target, PAGE);
    ON(1, { FAULTS(*(volatile char *)target = 1); });
    ON(2, { FAULTS((void)*(volatile char *)target); });
}

BEHAVIOUR(unmapped_after_use_everywhere)
{
    catch_all();
    target = map(PAGE, PROT_READ | PROT_WRITE, 0);
    target[5] = 5;
    ON(1, { SHOW(target[5]); });
    ON(2, { SHOW(target[5]); });
    munmap(target, PAGE);
    ON(1, { FAULTS((void)*(volatile char *)target); });
    ON(2, { FAULTS((void)*(volatile char *)target); });
    FAULTS((void)*(volatile char *)target);
}

BEHAVIOUR(write_to_read_only_page)
{
    catch_all();
    target = map(PAGE, PROT_READ | PROT_WRITE, 0);
    ON(1, { target[1] = 3; });
    mprotect(target, PAGE, PROT_READ);
    ON(1, { FAULTS(*(volatile char *)target = 1); SHOW(target[1]); });
    ON(2, { FAULTS(*(volatile char *)target = 1); SHOW(target[1]); });
    FAULTS(*(volatile char *)target = 1);
}

BEHAVIOUR(no_access_page)
{
    catch_all();
    target = map(PAGE, PROT_NONE, 0);
    ON(1, { FAULTS((void)*(volatile char *)target); });
    ON(2, { FAULTS(*(volatile char *)target = 1); });
    FAULTS((void)*(volatile char *)target);
}

BEHAVIOUR(write_to_constant)
{
    static const char text[] = "constant";
    catch_all();
    target = (char *)text;
    ON(1, { FAULTS(*(volatile char *)target = 1); });
}

BEHAVIOUR(write_to_text)
{
    catch_all();
    target = (char *)(uintptr_t)catch_all;
    ON(1, { FAULTS(*(volatile char *)target = 1); });
}

BEHAVIOUR(execute_data)
{
    catch_all();
    target = map(PAGE, PROT_READ | PROT_WRITE, 0);
    target[0] = (char)0xc3;
    ON(1, { FAULTS(((void (*)(void))target)()); });
}

BEHAVIOUR(kernel_address)
{
    catch_all();
    target = (char *)0xffff800000000000;
    ON(1, { FAULTS((void)*(volatile char *)target); });
}

BEHAVIOUR(non_canonical_address)
{
    catch_all();
    target = (char *)0x8000000000000000;
    ON(1, { if (sigsetjmp(place, 1) == 0) *(volatile char *)target = 1; else { say("%s %s\n", sigabbrev_np(number), code_name()); YES(address == NULL); } });
}

BEHAVIOUR(divide_by_zero)
{
    catch_all();
    ON(1, {
        static volatile int zero;
        static volatile __attribute__((unused)) int result;
        if (sigsetjmp(place, 1) == 0)
            result = 1000 / zero;
        else
            say("%s %s\n", sigabbrev_np(number), code_name());
    });
}

BEHAVIOUR(illegal_instruction)
{
    catch_all();
    ON(1, { if (sigsetjmp(place, 1) == 0) asm volatile("ud2"); else say("%s %s\n", sigabbrev_np(number), code_name()); });
}

BEHAVIOUR(breakpoint)
{
    catch_all();
    ON(1, { if (sigsetjmp(place, 1) == 0) asm volatile("int3"); else say("%s %s\n", sigabbrev_np(number), code_name()); });
}

BEHAVIOUR(privileged_instruction)
{
    catch_all();
    ON(1, { if (sigsetjmp(place, 1) == 0) asm volatile("cli"); else say("%s %s\n", sigabbrev_np(number), code_name()); });
}

BEHAVIOUR(handler_steps_over)
{
    void step(int signal, siginfo_t *info, void *context)
    {
        (void)info;
        say("%s\n", sigabbrev_np(signal));
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
    }
    catch_info(SIGILL, step, 0);
    ON(1, { asm volatile("ud2"); say("after\n"); });
    asm volatile("ud2");
    say("after\n");
}

BEHAVIOUR(handler_edits_registers)
{
    void edit(int signal, siginfo_t *info, void *context)
    {
        (void)signal;
        (void)info;
        greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
        registers[REG_RAX] = registers[REG_RBX] * 3;
        registers[REG_RIP] += 2;
    }
    catch_info(SIGILL, edit, 0);
    ON(1, {
        long result;
        asm volatile("ud2" : "=a"(result) : "b"(14L), "a"(0L) : "memory");
        SHOW(result);
    });
}

BEHAVIOUR(handler_makes_page_accessible)
{
    void allow(int signal, siginfo_t *info, void *context)
    {
        (void)signal;
        (void)context;
        code = info->si_code;
        mprotect((void *)((uintptr_t)info->si_addr & -PAGE), PAGE, PROT_READ | PROT_WRITE);
    }
    catch_info(SIGSEGV, allow, 0);
    target = map(3 * PAGE, PROT_NONE, 0);
    ON(1, { target[10] = 4; number = SIGSEGV; say("%s\n", code_name()); });
    ON(2, { SHOW(target[10]); target[PAGE + 10] = 5; });
    target[2 * PAGE] = 6;
    SHOW(target[PAGE + 10]);
    ON(1, { SHOW(target[2 * PAGE]); });
}

BEHAVIOUR(write_barrier_by_protection)
{
    // As garbage collectors do: protect, note the pages written, go on.
    static _Atomic int dirty[8];
    void note(int signal, siginfo_t *info, void *context)
    {
        (void)signal;
        (void)context;
        size_t page = ((char *)info->si_addr - target) / PAGE;
        dirty[page]++;
        mprotect(target + page * PAGE, PAGE, PROT_READ | PROT_WRITE);
    }
    catch_info(SIGSEGV, note, 0);
    target = map(8 * PAGE, PROT_READ | PROT_WRITE, 0);
    memset(target, 1, 8 * PAGE);
    for (int round = 0; round < 3; round++) {
        mprotect(target, 8 * PAGE, PROT_READ);
        ON(1, { target[0] = 1; target[3 * PAGE] = 2; });
        ON(2, { target[3 * PAGE + 1] = 2; target[5 * PAGE] = 1; });
    }
    for (int page = 0; page < 8; page++)
        say("%d ", dirty[page]);
    say("\n");
}

BEHAVIOUR(error_code_tells_read_from_write)
{
    static volatile long error;
    void look(int signal, siginfo_t *info, void *context)
    {
        (void)info;
        (void)signal;
        error = ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR];
        siglongjmp(place, 1);
    }
    catch_info(SIGSEGV, look, 0);
    target = map(PAGE, PROT_NONE, 0);
    ON(1, {
        if (sigsetjmp(place, 1) == 0)
            *(volatile char *)target = 1;
        SHOW(error & 2);
        if (sigsetjmp(place, 1) == 0)
            (void)*(volatile char *)target;
        SHOW(error & 2);
        SHOW(error & 4);
    });
}

BEHAVIOUR(faulting_address_in_cr2)
{
    static volatile long register_value;
    void look(int signal, siginfo_t *info, void *context)
    {
        (void)signal;
        (void)info;
        register_value = ((ucontext_t *)context)->uc_mcontext.gregs[REG_CR2];
        siglongjmp(place, 1);
    }
    catch_info(SIGSEGV, look, 0);
    target = map(PAGE, PROT_NONE, 0);
    ON(1, { if (sigsetjmp(place, 1) == 0) target[123] = 1; YES((char *)register_value == target + 123); });
}

BEHAVIOUR(beyond_end_of_file)
{
    catch_all();
    int file = file_with("short", "abc", 3);
    target = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    target += PAGE;
    ON(1, { SHOW(target[-PAGE]); SHOW(target[-1]); FAULTS((void)*(volatile char *)target); });
    FAULTS(*(volatile char *)target = 1);
}

BEHAVIOUR(raised_fault_signal_is_no_fault)
{
    void handler(int signal, siginfo_t *info, void *context)
    {
        (void)context;
        say("%s SI_TKILL: %s\n", sigabbrev_np(signal), info->si_code == SI_TKILL ? "yes" : "no");
    }
    catch_info(SIGSEGV, handler, 0);
    catch_info(SIGFPE, handler, 0);
    catch_info(SIGILL, handler, 0);
    ON(1, { raise(SIGSEGV); raise(SIGFPE); raise(SIGILL); });
}

BEHAVIOUR(guard_page_of_thread_stack)
{
    catch_all();
    static char stack[65536];
    ON(1, {
        pthread_attr_t mine;
        void *base;
        size_t size;
        sigaltstack(&((stack_t){.ss_sp = stack, .ss_size = sizeof stack}), NULL);
        pthread_getattr_np(pthread_self(), &mine);
        pthread_attr_getstack(&mine, &base, &size);
        target = (char *)base - 1;
        FAULTS(*(volatile char *)target = 1);
    });
}

BEHAVIOUR(fault_within_handler_of_other_signal)
{
    void other(int signal)
    {
        (void)signal;
        target = NULL;
        FAULTS(*(volatile char *)target = 1);
    }
    catch_all();
    catch_signal(SIGUSR1, other, 0);
    ON(1, { raise(SIGUSR1); say("returned\n"); });
}

BEHAVIOUR(call_with_bad_pointer_gives_efault)
{
    target = map(PAGE, PROT_NONE, 0);
    static int file;
    file = file_with("f", "hello", 5);
    ON(1, {
        TRY(pread(file, target, 5, 0));
        TRY(pwrite(file, target, 5, 0));
        TRY(open(target, O_RDONLY));
        TRY(fstat(file, (struct stat *)target));
        TRY(pipe((int *)target));
        TRY(syscall(SYS_clock_gettime, 0, target));
        TRY(syscall(SYS_nanosleep, target, NULL));
        TRY(syscall(SYS_rt_sigaction, SIGUSR1, target, NULL, 8));
        TRY(syscall(SYS_futex, target, 0, 0, NULL, NULL, 0));
    });
    TRY(pread(file, target, 5, 0));
    TRY(syscall(SYS_clock_gettime, 0, target));
    TRY(syscall(SYS_getcwd, target, 100));
}

BEHAVIOUR(read_into_read_only_page_gives_efault)
{
    static int file;
    file = file_with("f", "hello", 5);
    target = map(PAGE, PROT_READ, 0);
    ON(1, { TRY(pread(file, target, 5, 0)); TRY(pwrite(file, target, 5, 0)); });
    TRY(pread(file, target, 5, 0));
}

#define DIES(NAME, STATEMENT)                      \
    BEHAVIOUR(NAME)                                \
    {                                              \
        target = map(PAGE, PROT_NONE, 0);          \
        ON(1, {                                    \
            static volatile int zero;              \
            say("%d\n", zero);                     \
            STATEMENT;                             \
            say("never\n");                        \
        });                                        \
        say("never\n");                            \
    }

DIES(default_of_segv_on_member, *(volatile char *)target = 1)
DIES(default_of_fpe_on_member, zero = 1000 / zero)
DIES(default_of_ill_on_member, asm volatile("ud2"))
DIES(default_of_trap_on_member, asm volatile("int3"))

BEHAVIOUR(default_of_segv_on_main)
{
    target = map(PAGE, PROT_NONE, 0);
    *(volatile char *)target = 1;
    say("never\n");
}

BEHAVIOUR(default_of_bus_on_member)
{
    int file = file_with("short", "abc", 3);
    target = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, file, 0);
    ON(1, { (void)*(volatile char *)(target + PAGE); });
    say("never\n");
}

BEHAVIOUR(ignored_fault_kills_all_the_same)
{
    signal(SIGSEGV, SIG_IGN);
    target = map(PAGE, PROT_NONE, 0);
    ON(1, { *(volatile char *)target = 1; });
    say("never\n");
}

BEHAVIOUR(blocked_fault_kills_all_the_same)
{
    catch_all();
    target = map(PAGE, PROT_NONE, 0);
    ON(1, { block_signal(SIG_BLOCK, SIGSEGV); *(volatile char *)target = 1; });
    say("never\n");
}
