// What the process sees of itself and of the machine: /proc/self, processors, memory. The machine is the whole cluster, so that
// figures are compared with each other, not with one host's.
#include "check.h"
#include <dirent.h>
#include <sys/sysinfo.h>

static char text[1 << 18];

// The whole file, from a thread of the caller.
static long slurp(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    long total = 0, count;
    while (total < (long)sizeof text - 1 && (count = read(file, text + total, sizeof text - 1 - total)) > 0)
        total += count;
    text[total] = 0;
    close(file);
    return total;
}

static int lines_with(const char *word)
{
    int lines = 0;
    for (char *at = text; (at = strstr(at, word)) != NULL; at++)
        lines += at == text || at[-1] == '\n';
    return lines;
}

static long field(const char *name)
{
    char *at = strstr(text, name);
    return at == NULL ? -1 : atol(at + strlen(name));
}

static int entries(const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return -1;
    int count = -2;
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

BEHAVIOUR(own_executable)
{
    ON(1, { char path[4096] = ""; YES(readlink("/proc/self/exe", path, sizeof path) > 0); say("%s\n", strrchr(path, '/')); char first[4]; int file = open("/proc/self/exe", O_RDONLY); SHOW(read(file, first, 4)); YES(memcmp(first, "\177ELF", 4) == 0); struct stat status; TRY(stat("/proc/self/exe", &status)); YES((status.st_mode & 0111) != 0); });
}

BEHAVIOUR(executable_by_number_and_thread)
{
    ON(1, { char path[4096] = ""; char name[100]; snprintf(name, sizeof name, "/proc/%d/exe", getpid()); YES(readlink(name, path, sizeof path) > 0); say("%s\n", strrchr(path, '/')); memset(path, 0, sizeof path); readlink("/proc/thread-self/exe", path, sizeof path); say("%s\n", strrchr(path, '/')); });
}

BEHAVIOUR(command_line)
{
    ON(1, { long bytes = slurp("/proc/self/cmdline"); YES(bytes > 0); char *second = text + strlen(text) + 1; say("%s %s\n", strrchr(text, '/'), second); });
}

BEHAVIOUR(short_name)
{
    ON(1, { slurp("/proc/self/comm"); say("%s", text); pthread_setname_np(pthread_self(), "renamed"); slurp("/proc/thread-self/comm"); say("%s", text); });
}

BEHAVIOUR(name_of_remote_thread_in_task)
{
    static _Atomic pid_t theirs;
    static _Atomic bool may_end;
    pthread_t thread = START(1, { pthread_setname_np(pthread_self(), "far away"); theirs = tid(); UNTIL(may_end); });
    UNTIL(theirs);
    char path[100];
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", theirs);
    YES(slurp(path) > 0);
    say("%s", text);
    may_end = true;
    join(thread);
}

BEHAVIOUR(maps_show_program)
{
    ON(1, {
        SHOW(slurp("/proc/self/maps") > 0);
        YES(strstr(text, "process-view") != NULL || strstr(text, "view") != NULL);
        YES(strstr(text, "[stack]") != NULL);
        YES(strstr(text, "libc") != NULL);
        YES(strstr(text, "[heap]") != NULL);
        YES(strstr(text, "dvm") == NULL);
        YES(strstr(text, "memfd") == NULL);
    });
}

BEHAVIOUR(maps_show_mapping_and_protection)
{
    static char *area;
    area = map(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    mprotect(area + PAGE, PAGE, PROT_READ);
    mprotect(area + 2 * PAGE, PAGE, PROT_NONE);
    ON(1, {
        char wanted[100];
        slurp("/proc/self/maps");
        snprintf(wanted, sizeof wanted, "%lx-%lx r--p", (long)area + PAGE, (long)area + 2 * PAGE);
        YES(strstr(text, wanted) != NULL);
        snprintf(wanted, sizeof wanted, "%lx-%lx ---p", (long)area + 2 * PAGE, (long)area + 3 * PAGE);
        YES(strstr(text, wanted) != NULL);
        munmap(area + PAGE, PAGE);
        slurp("/proc/self/maps");
        snprintf(wanted, sizeof wanted, "%lx-", (long)area + PAGE);
        YES(strstr(text, wanted) == NULL);
    });
}

BEHAVIOUR(maps_in_detail)
{
    ON(1, { YES(slurp("/proc/self/smaps") > 0); YES(strstr(text, "Rss:") != NULL); YES(slurp("/proc/self/smaps_rollup") > 0); YES(field("Rss:") > 0); });
}

BEHAVIOUR(status_file)
{
    ON(1, { SHOW(slurp("/proc/self/status") > 0); YES(field("\nPid:") == getpid()); YES(field("\nTgid:") == getpid()); YES(field("\nPPid:") == getppid()); SHOW(field("\nThreads:")); YES(field("\nVmRSS:") > 0); YES(field("\nVmSize:") > 0 && field("\nVmSize:") < 100L << 20); YES(strncmp(text, "Name:\t", 6) == 0); SHOW(field("\nTracerPid:")); });
}

BEHAVIOUR(threads_are_counted)
{
    static _Atomic bool may_end;
    static _Atomic int started;
    void *body(void *argument)
    {
        started++;
        UNTIL(may_end);
        return argument;
    }
    pthread_t threads[5];
    for (int at = 0; at < 5; at++)
        threads[at] = start_on(at + 1, body, NULL);
    UNTIL(started == 5);
    SHOW(entries("/proc/self/task"));
    slurp("/proc/self/status");
    SHOW(field("\nThreads:"));
    slurp("/proc/self/stat");
    char *after = strrchr(text, ')') + 2;
    for (int at = 0; at < 17; at++)
        after = strchr(after, ' ') + 1;
    SHOW(atoi(after));
    may_end = true;
    for (int at = 0; at < 5; at++)
        join(threads[at]);
    SHOW(entries("/proc/self/task"));
}

BEHAVIOUR(thread_numbers_in_task)
{
    ON(1, { char path[100]; snprintf(path, sizeof path, "/proc/self/task/%d/status", tid()); YES(slurp(path) > 0); YES(field("\nPid:") == tid()); YES(field("\nTgid:") == getpid()); });
}

BEHAVIOUR(thread_self)
{
    ON(1, { char path[100] = ""; char wanted[100]; readlink("/proc/thread-self", path, sizeof path); snprintf(wanted, sizeof wanted, "%d/task/%d", getpid(), tid()); YES(strcmp(path, wanted) == 0); memset(path, 0, sizeof path); readlink("/proc/self", path, sizeof path); YES(atoi(path) == getpid()); });
}

BEHAVIOUR(descriptors_listed)
{
    dup2(0, 30);
    ON(1, { SHOW(entries("/proc/self/fd")); SHOW(entries("/proc/self/fdinfo")); char path[100] = ""; readlink("/proc/self/fd/30", path, sizeof path); say("%s\n", path); TRY(readlink("/proc/self/fd/31", path, sizeof path)); });
}

BEHAVIOUR(descriptor_opened_again)
{
    ON(1, { int file = file_with("f", "content", 7); char path[100]; snprintf(path, sizeof path, "/proc/self/fd/%d", file); int again = open(path, O_RDONLY); char bytes[7]; SHOW(pread(again, bytes, 7, 0)); say("%.7s\n", bytes); snprintf(path, sizeof path, "/dev/fd/%d", file); TRY(open(path, O_RDONLY)); snprintf(path, sizeof path, "/proc/self/fdinfo/%d", file); YES(slurp(path) > 0); SHOW(field("pos:")); });
}

BEHAVIOUR(working_directory_link)
{
    ON(1, { char path[4096] = ""; char wanted[4096]; readlink("/proc/self/cwd", path, sizeof path); YES(strcmp(path, getcwd(wanted, sizeof wanted)) == 0); memset(path, 0, sizeof path); readlink("/proc/self/root", path, sizeof path); say("%s\n", path); });
}

BEHAVIOUR(environment_file)
{
    ON(1, { YES(slurp("/proc/self/environ") > 0); });
}

BEHAVIOUR(auxiliary_file)
{
    ON(1, { int file = open("/proc/self/auxv", O_RDONLY); unsigned long pairs[80] = {0}; YES(read(file, pairs, sizeof pairs) > 0); long page = 0; long entry = 0; for (int at = 0; at < 80 && pairs[at] != 0; at += 2) { if (pairs[at] == 6) page = pairs[at + 1]; if (pairs[at] == 9) entry = pairs[at + 1]; } SHOW(page); extern char _start; YES(entry == (long)&_start); });
}

BEHAVIOUR(own_memory_file)
{
    ON(1, { static int value = 77; int found = 0; int file = open("/proc/self/mem", O_RDWR); say("/proc/self/mem: %s\n", outcome(file)); if (file >= 0) { SHOW(pread(file, &found, 4, (off_t)(uintptr_t)&value)); SHOW(found); } });
}

BEHAVIOUR(memory_sizes)
{
    ON(1, { long size; long resident; YES(slurp("/proc/self/statm") > 0); YES(sscanf(text, "%ld %ld", &size, &resident) == 2 && size > 0 && resident > 0 && size >= resident); });
}

BEHAVIOUR(own_limits_file)
{
    ON(1, { YES(slurp("/proc/self/limits") > 0); YES(strstr(text, "Max open files") != NULL); });
}

BEHAVIOUR(control_group_and_mounts)
{
    ON(1, { YES(slurp("/proc/self/cgroup") >= 0); YES(slurp("/proc/self/mountinfo") > 0); YES(slurp("/proc/self/oom_score_adj") > 0); });
}

BEHAVIOUR(processors_agree)
{
    // Whatever way a program counts them, it gets one number, on every host.
    static long counts[8];
    ON(1, {
        cpu_set_t set;
        counts[0] = sysconf(_SC_NPROCESSORS_ONLN);
        counts[1] = sysconf(_SC_NPROCESSORS_CONF);
        sched_getaffinity(0, sizeof set, &set);
        counts[2] = CPU_COUNT(&set);
        counts[3] = get_nprocs();
        slurp("/proc/cpuinfo");
        counts[4] = lines_with("processor\t");
        slurp("/proc/stat");
        counts[5] = lines_with("cpu") - 1;
        pthread_getaffinity_np(pthread_self(), sizeof set, &set);
        counts[6] = CPU_COUNT(&set);
    });
    counts[7] = sysconf(_SC_NPROCESSORS_ONLN);
    for (int at = 0; at < 8; at++)
        if (at != 2 && at != 6 && counts[at] != counts[0])
            say("way %d differs\n", at);
    // Whoever started this may have given it fewer.
    YES(counts[2] == counts[6] && counts[2] > 0 && counts[2] <= counts[0]);
}

BEHAVIOUR(processor_directories_agree)
{
    ON(1, { char path[100]; int count = 0; do { snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", count); } while (access(path, F_OK) == 0 && ++count < 4096); YES(count == sysconf(_SC_NPROCESSORS_CONF)); slurp("/sys/devices/system/cpu/online"); char wanted[32]; snprintf(wanted, sizeof wanted, count > 1 ? "0-%d\n" : "%d\n", count - 1); YES(strcmp(text, wanted) == 0); slurp("/sys/devices/system/cpu/possible"); YES(strcmp(text, wanted) == 0); slurp("/sys/devices/system/cpu/present"); YES(strcmp(text, wanted) == 0); });
}

BEHAVIOUR(processor_details_exist)
{
    ON(1, { YES(slurp("/sys/devices/system/cpu/cpu0/topology/core_id") > 0); char path[100]; snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%ld/topology/physical_package_id", sysconf(_SC_NPROCESSORS_CONF) - 1); YES(slurp(path) > 0); });
}

BEHAVIOUR(status_lists_processors)
{
    ON(1, {
        slurp("/proc/self/status");
        char *at = strstr(text, "Cpus_allowed_list:\t");
        long listed = 0;
        while (at != NULL && *at != '\n') {
            long first = strtol(at + strcspn(at, "0123456789"), &at, 10);
            listed += *at == '-' ? strtol(at + 1, &at, 10) - first + 1 : 1;
        }
        cpu_set_t set;
        sched_getaffinity(0, sizeof set, &set);
        YES(listed == CPU_COUNT(&set));
    });
}

BEHAVIOUR(current_processor_is_one_of_them)
{
    void *body(void *argument)
    {
        unsigned cpu = 9999, node = 9999;
        YES(sched_getcpu() >= 0 && sched_getcpu() < sysconf(_SC_NPROCESSORS_CONF));
        if (syscall(SYS_getcpu, &cpu, &node, NULL) != 0 || cpu >= (unsigned)sysconf(_SC_NPROCESSORS_CONF))
            say("wrong processor\n");
        return argument;
    }
    on_each(1, body);
    join(start_on(2, body, NULL));
}

BEHAVIOUR(affinity_is_set_and_read_back)
{
    ON(1, { cpu_set_t set; CPU_ZERO(&set); CPU_SET(0, &set); TRY(sched_setaffinity(0, sizeof set, &set)); CPU_ZERO(&set); TRY(sched_getaffinity(0, sizeof set, &set)); SHOW(CPU_COUNT(&set)); SHOW(CPU_ISSET(0, &set)); CPU_ZERO(&set); TRY(sched_setaffinity(0, sizeof set, &set)); TRY(sched_getaffinity(0, 1, &set)); TRY(sched_getaffinity(999999999, sizeof set, &set)); });
}

BEHAVIOUR(affinity_of_remote_thread)
{
    static _Atomic bool may_end;
    pthread_t thread = START(1, { UNTIL(may_end); });
    cpu_set_t set, before;
    pthread_getaffinity_np(pthread_self(), sizeof before, &before);
    CPU_ZERO(&set);
    CPU_SET(1, &set);
    PTHREAD(pthread_setaffinity_np(thread, sizeof set, &set));
    CPU_ZERO(&set);
    PTHREAD(pthread_getaffinity_np(thread, sizeof set, &set));
    SHOW(CPU_COUNT(&set));
    SHOW(CPU_ISSET(1, &set));
    may_end = true;
    join(thread);
    cpu_set_t after;
    pthread_getaffinity_np(pthread_self(), sizeof after, &after);
    YES(CPU_EQUAL(&before, &after));
}

BEHAVIOUR(affinity_is_inherited)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    sched_setaffinity(0, sizeof set, &set);
    ON(1, { cpu_set_t own; sched_getaffinity(0, sizeof own, &own); SHOW(CPU_COUNT(&own)); });
}

BEHAVIOUR(memory_figures_agree)
{
    ON(1, { struct sysinfo info; TRY(sysinfo(&info)); slurp("/proc/meminfo"); long of_file = field("MemTotal:"); long of_call = info.totalram * info.mem_unit / 1024; long of_pages = sysconf(_SC_PHYS_PAGES) * (PAGE / 1024); YES(of_file > 0 && labs(of_file - of_call) <= of_file / 100); YES(labs(of_file - of_pages) <= of_file / 100); YES(field("MemFree:") > 0 && field("MemFree:") <= of_file); YES(field("MemAvailable:") > 0 && field("MemAvailable:") <= of_file); });
}

BEHAVIOUR(uptime_and_load)
{
    ON(1, { struct sysinfo info; sysinfo(&info); YES(slurp("/proc/uptime") > 0); YES(labs(atol(text) - info.uptime) <= 2); double loads[3]; SHOW(getloadavg(loads, 3)); });
}

BEHAVIOUR(machine_wide_files_open)
{
    ON(1, { YES(slurp("/proc/version") > 0); YES(slurp("/proc/sys/kernel/pid_max") > 0); YES(slurp("/proc/sys/vm/overcommit_memory") > 0); YES(slurp("/sys/kernel/mm/transparent_hugepage/enabled") >= -1); YES(slurp("/proc/filesystems") > 0); });
}
