// Files: calls on them from several hosts, one table of descriptors, one set of offsets.
#include "check.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/xattr.h>

static int file;
static char bytes[16384];
static struct stat status;

BEHAVIOUR(open_flags)
{
    ON(1, {
        TRY(open("none", O_RDONLY));
        TRY(open("new", O_RDWR | O_CREAT | O_EXCL, 0600));
        TRY(open("new", O_RDWR | O_CREAT | O_EXCL, 0600));
        TRY(open("new", O_RDONLY | O_DIRECTORY));
        TRY(open(".", O_WRONLY));
        TRY(open("new/below", O_RDONLY));
        TRY(open(".", O_RDWR | O_TMPFILE, 0600));
        TRY(open("new", O_PATH));
        TRY(symlink("new", "link"));
        TRY(open("link", O_RDONLY | O_NOFOLLOW));
    });
}

BEHAVIOUR(descriptors_are_lowest_free)
{
    ON(1, { file = open("/dev/null", O_RDONLY); SHOW(file); });
    ON(2, { SHOW(open("/dev/null", O_RDONLY)); close(file); SHOW(open("/dev/null", O_RDONLY)); SHOW(dup(0)); });
    SHOW(open("/dev/null", O_RDONLY));
}

BEHAVIOUR(offset_is_shared)
{
    file = file_with("f", "abcdefghij", 10);
    lseek(file, 0, SEEK_SET);
    ON(1, { SHOW(read(file, bytes, 3)); SHOW(bytes[0]); });
    ON(2, { SHOW(read(file, bytes, 3)); SHOW(bytes[0]); SHOW(lseek(file, 0, SEEK_CUR)); });
    SHOW(read(file, bytes, 10));
    SHOW(read(file, bytes, 10));
}

BEHAVIOUR(positions)
{
    file = file_with("f", "abcdefghij", 10);
    ON(1, {
        SHOW(lseek(file, 3, SEEK_SET));
        SHOW(lseek(file, -2, SEEK_END));
        TRY(lseek(file, -1, SEEK_SET));
        TRY(lseek(file, 0, 99));
        SHOW(lseek(file, 100, SEEK_SET));
        SHOW(write(file, "x", 1));
        SHOW(lseek(file, 0, SEEK_END));
        TRY(lseek(0x7ffffff, 0, SEEK_SET));
    });
}

BEHAVIOUR(positional_calls_keep_offset)
{
    file = file_with("f", "abcdefghij", 10);
    ON(1, { SHOW(pread(file, bytes, 4, 5)); say("%.4s\n", bytes); SHOW(pwrite(file, "XY", 2, 1)); SHOW(lseek(file, 0, SEEK_CUR)); TRY(pread(file, bytes, 1, -1)); });
    pread(file, bytes, 10, 0);
    say("%.10s\n", bytes);
}

BEHAVIOUR(append_from_all_hosts)
{
    file = open("log", O_RDWR | O_CREAT | O_APPEND, 0600);
    void *body(void *argument)
    {
        char line[16];
        memset(line, 'a' + (int)(uintptr_t)argument, 15);
        line[15] = '\n';
        for (int at = 0; at < 50; at++)
            if (write(file, line, 16) != 16)
                say("short\n");
        return argument;
    }
    on_each(3, body);
    SHOW(lseek(file, 0, SEEK_END));
    int torn = 0;
    for (int at = 0; at < 150; at++) {
        pread(file, bytes, 16, at * 16);
        for (int byte = 1; byte < 15; byte++)
            torn += bytes[byte] != bytes[0];
    }
    SHOW(torn);
}

BEHAVIOUR(large_reads_and_writes)
{
    ON(1, {
        size_t size = 3 << 20;
        char *block = malloc(size);
        for (size_t at = 0; at < size; at++)
            block[at] = at * 7 + at / 4096;
        file = open("large", O_RDWR | O_CREAT, 0600);
        SHOW(write(file, block, size));
    });
    ON(2, {
        size_t size = 3 << 20;
        char *block = malloc(size);
        SHOW(pread(file, block, size, 0));
        long wrong = 0;
        for (size_t at = 0; at < size; at++)
            wrong += block[at] != (char)(at * 7 + at / 4096);
        SHOW(wrong);
    });
}

BEHAVIOUR(vectors)
{
    file = open("v", O_RDWR | O_CREAT, 0600);
    ON(1, {
        struct iovec out[3] = {{"one ", 4}, {"", 0}, {"two", 3}};
        SHOW(writev(file, out, 3));
        SHOW(pwritev(file, out, 3, 100));
    });
    ON(2, {
        static char first[3];
        static char second[10];
        struct iovec in[2] = {{first, 3}, {second, 10}};
        lseek(file, 0, SEEK_SET);
        SHOW(readv(file, in, 2) >= 7);
        say("%.3s|%.4s\n", first, second);
        SHOW(preadv(file, in, 2, 100));
        SHOW(preadv2(file, in, 2, 100, 0));
        SHOW(pwritev2(file, in, 2, -1, RWF_APPEND));
        TRY(readv(file, in, -1));
        TRY(readv(file, in, 2000));
    });
}

BEHAVIOUR(truncation)
{
    file = file_with("f", "abcdefghij", 10);
    ON(1, { TRY(ftruncate(file, 4)); TRY(truncate("f", 6)); SHOW(pread(file, bytes, 10, 0)); SHOW(bytes[5]); TRY(ftruncate(file, -1)); TRY(truncate("none", 0)); });
}

BEHAVIOUR(allocation)
{
    file = open("f", O_RDWR | O_CREAT, 0600);
    ON(1, { TRY(fallocate(file, 0, 0, 8192)); fstat(file, &status); SHOW(status.st_size); TRY(fallocate(file, FALLOC_FL_KEEP_SIZE, 8192, 8192)); TRY(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096)); PTHREAD(posix_fallocate(file, 0, 100000)); fstat(file, &status); SHOW(status.st_size); });
}

BEHAVIOUR(holes_are_sought)
{
    file = open("f", O_RDWR | O_CREAT, 0600);
    pwrite(file, "x", 1, 1 << 20);
    ON(1, { YES(lseek(file, 0, SEEK_DATA) > 0); SHOW(lseek(file, 0, SEEK_HOLE)); TRY(lseek(file, 2 << 20, SEEK_DATA)); });
}

BEHAVIOUR(status_family)
{
    file_with("f", "abc", 3);
    symlink("f", "l");
    ON(1, {
        TRY(stat("f", &status));
        SHOW(status.st_size);
        SHOW(status.st_mode & 0777);
        SHOW(S_ISREG(status.st_mode));
        TRY(lstat("l", &status));
        SHOW(S_ISLNK(status.st_mode));
        TRY(fstatat(AT_FDCWD, "l", &status, AT_SYMLINK_NOFOLLOW));
        SHOW(status.st_size);
        TRY(stat("none", &status));
        TRY(fstat(77, &status));
        TRY(fstat(1, &status));
        struct statx more;
        TRY(statx(AT_FDCWD, "f", 0, STATX_ALL, &more));
        SHOW(more.stx_size);
        SHOW(more.stx_nlink);
        TRY(fstatat(1, "", &status, AT_EMPTY_PATH));
    });
}

BEHAVIOUR(same_file_same_numbers)
{
    static struct stat first;
    static struct stat second;
    file = file_with("f", "abc", 3);
    fstat(file, &first);
    ON(1, { stat("f", &second); });
    YES(first.st_ino == second.st_ino && first.st_dev == second.st_dev);
}

BEHAVIOUR(access_rights)
{
    file_with("f", "abc", 3);
    ON(1, { TRY(access("f", R_OK)); TRY(access("none", F_OK)); TRY(chmod("f", 0400)); stat("f", &status); SHOW(status.st_mode & 0777); TRY(fchmodat(AT_FDCWD, "f", 0755, 0)); TRY(faccessat(AT_FDCWD, "f", X_OK, AT_EACCESS)); TRY(chown("f", -1, -1)); TRY(access("f", 99)); });
}

BEHAVIOUR(creation_mask)
{
    ON(1, { umask(077); close(open("a", O_CREAT | O_RDWR, 0666)); });
    ON(2, { close(open("b", O_CREAT | O_RDWR, 0666)); SHOW(umask(022)); });
    stat("a", &status);
    SHOW(status.st_mode & 0777);
    stat("b", &status);
    SHOW(status.st_mode & 0777);
}

BEHAVIOUR(directories)
{
    ON(1, { TRY(mkdir("d", 0700)); TRY(mkdir("d", 0700)); TRY(mkdir("x/y", 0700)); TRY(rmdir("d")); TRY(rmdir("d")); mkdir("e", 0700); close(open("e/f", O_CREAT | O_RDWR, 0600)); TRY(rmdir("e")); });
}

BEHAVIOUR(working_directory_is_one)
{
    mkdir("below", 0700);
    ON(1, { TRY(chdir("below")); close(open("made-here", O_CREAT | O_RDWR, 0600)); });
    ON(2, { char *path = getcwd(bytes, sizeof bytes); YES(strcmp(strrchr(path, '/'), "/below") == 0); TRY(access("made-here", F_OK)); int up = open("..", O_RDONLY); TRY(fchdir(up)); });
    TRY(access("below/made-here", F_OK));
    TRY(getcwd(bytes, 1) == NULL ? -1 : 0);
}

BEHAVIOUR(directory_entries)
{
    mkdir("d", 0700);
    for (int at = 0; at < 200; at++) {
        sprintf(bytes, "d/entry-%03d-with-a-rather-long-name", at);
        close(open(bytes, O_CREAT | O_RDWR, 0600));
    }
    ON(1, {
        DIR *directory = opendir("d");
        struct dirent *entry;
        int entries = 0;
        int files = 0;
        while ((entry = readdir(directory)) != NULL) {
            entries++;
            files += entry->d_type == DT_REG;
        }
        SHOW(entries);
        SHOW(files);
        rewinddir(directory);
        YES(readdir(directory) != NULL);
        closedir(directory);
        struct dirent **names;
        SHOW(scandir("d", &names, NULL, alphasort));
        say("%s\n", names[2]->d_name);
    });
}

BEHAVIOUR(links)
{
    file_with("f", "abc", 3);
    ON(1, {
        TRY(link("f", "g"));
        stat("g", &status);
        SHOW(status.st_nlink);
        TRY(symlink("f", "s"));
        SHOW(readlink("s", bytes, sizeof bytes));
        say("%.1s\n", bytes);
        TRY(symlink("loop", "loop"));
        TRY(open("loop", O_RDONLY));
        TRY(readlink("f", bytes, 10));
        YES(realpath("s", NULL) != NULL);
    });
}

BEHAVIOUR(renaming)
{
    file_with("a", "aaa", 3);
    file_with("b", "bb", 2);
    ON(1, {
        TRY(rename("a", "b"));
        stat("b", &status);
        SHOW(status.st_size);
        TRY(rename("none", "c"));
        TRY(renameat2(AT_FDCWD, "b", AT_FDCWD, "b", RENAME_NOREPLACE));
        TRY(mkdir("d", 0700));
        TRY(renameat(AT_FDCWD, "b", AT_FDCWD, "d/b"));
        TRY(rename("d", "d/e"));
    });
}

BEHAVIOUR(unlinked_file_lives_on)
{
    file = file_with("f", "abc", 3);
    ON(1, { TRY(unlink("f")); TRY(open("f", O_RDONLY)); });
    ON(2, { SHOW(pread(file, bytes, 3, 0)); fstat(file, &status); SHOW(status.st_nlink); TRY(unlink("f")); TRY(unlinkat(AT_FDCWD, ".", AT_REMOVEDIR)); });
}

BEHAVIOUR(duplicates)
{
    static int copy;
    file = file_with("f", "abcdef", 6);
    lseek(file, 0, SEEK_SET);
    ON(1, { copy = dup(file); SHOW(read(copy, bytes, 2)); SHOW(dup2(file, 50)); SHOW(dup2(50, 50)); TRY(dup3(50, 50, 0)); SHOW(fcntl(file, F_DUPFD, 60)); SHOW(fcntl(file, F_DUPFD_CLOEXEC, 60)); SHOW(fcntl(61, F_GETFD)); TRY(dup2(99, 3)); TRY(dup(-1)); });
    ON(2, { SHOW(lseek(50, 0, SEEK_CUR)); close(file); SHOW(read(60, bytes, 2)); });
}

BEHAVIOUR(descriptor_flags)
{
    file = open("f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ON(1, { SHOW(fcntl(file, F_GETFD)); TRY(fcntl(file, F_SETFD, 0)); SHOW(fcntl(file, F_GETFD)); SHOW((fcntl(file, F_GETFL) & O_ACCMODE) == O_RDWR); TRY(fcntl(file, F_SETFL, O_APPEND | O_NONBLOCK)); });
    SHOW((fcntl(file, F_GETFL) & (O_APPEND | O_NONBLOCK)) == (O_APPEND | O_NONBLOCK));
    TRY(fcntl(99, F_GETFD));
}

BEHAVIOUR(close_is_for_all)
{
    file = file_with("f", "abc", 3);
    ON(1, { TRY(close(file)); TRY(close(file)); });
    ON(2, { TRY(read(file, bytes, 1)); });
    TRY(close(12345));
}

BEHAVIOUR(close_range_of_descriptors)
{
    for (int at = 20; at < 30; at++)
        dup2(0, at);
    ON(1, { TRY(close_range(22, 25, 0)); TRY(fcntl(23, F_GETFD)); TRY(fcntl(26, F_GETFD)); TRY(close_range(30, 20, 0)); TRY(close_range(26, ~0U, 0)); });
    TRY(fcntl(28, F_GETFD));
    TRY(fcntl(21, F_GETFD));
    ON(2, { say("alive\n"); });
}

BEHAVIOUR(record_locks)
{
    file = file_with("f", "abcdef", 6);
    ON(1, {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 3};
        TRY(fcntl(file, F_SETLK, &lock));
        TRY(fcntl(file, F_GETLK, &lock));
        SHOW(lock.l_type == F_UNLCK);
    });
    ON(2, { struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET}; TRY(fcntl(file, F_SETLK, &lock)); lock.l_type = 77; TRY(fcntl(file, F_SETLK, &lock)); });
}

BEHAVIOUR(open_file_description_locks)
{
    static int second;
    file = file_with("f", "abcdef", 6);
    second = open("f", O_RDWR);
    ON(1, { struct flock lock = {.l_type = F_WRLCK}; TRY(fcntl(file, F_OFD_SETLK, &lock)); });
    ON(2, { struct flock lock = {.l_type = F_WRLCK}; TRY(fcntl(second, F_OFD_SETLK, &lock)); TRY(fcntl(second, F_OFD_GETLK, &lock)); SHOW(lock.l_type == F_WRLCK); close(file); lock = (struct flock){.l_type = F_WRLCK}; TRY(fcntl(second, F_OFD_SETLK, &lock)); });
}

BEHAVIOUR(whole_file_locks)
{
    static int second;
    file = file_with("f", "a", 1);
    second = open("f", O_RDWR);
    ON(1, { TRY(flock(file, LOCK_EX)); });
    ON(2, { TRY(flock(second, LOCK_EX | LOCK_NB)); TRY(flock(second, LOCK_SH | LOCK_NB)); });
    static _Atomic bool is_locked;
    pthread_t waiter = START(2, { flock(second, LOCK_EX); is_locked = true; });
    ms(30);
    YES(!is_locked);
    ON(1, { flock(file, LOCK_UN); });
    join(waiter);
    YES(is_locked);
}

BEHAVIOUR(sending_files)
{
    static int copy;
    file = file_with("f", "abcdefghij", 10);
    copy = open("g", O_RDWR | O_CREAT, 0600);
    ON(1, { off_t offset = 2; SHOW(sendfile(copy, file, &offset, 5)); SHOW(offset); });
    ON(2, { loff_t in = 0; loff_t out = 5; SHOW(copy_file_range(file, &in, copy, &out, 3, 0)); SHOW(in); SHOW(pread(copy, bytes, 20, 0)); say("%.8s\n", bytes); });
}

BEHAVIOUR(synchronising)
{
    file = file_with("f", "a", 1);
    ON(1, { TRY(fsync(file)); TRY(fdatasync(file)); TRY(syncfs(file)); TRY(sync_file_range(file, 0, 1, SYNC_FILE_RANGE_WRITE)); TRY(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED)); TRY(readahead(file, 0, 1)); TRY(fsync(77)); });
}

BEHAVIOUR(times_of_files)
{
    file = file_with("f", "a", 1);
    ON(1, {
        struct timespec times[2] = {{1000, 5}, {2000, 6}};
        TRY(utimensat(AT_FDCWD, "f", times, 0));
        stat("f", &status);
        SHOW(status.st_atim.tv_sec);
        SHOW(status.st_mtim.tv_nsec);
        TRY(futimens(file, NULL));
        times[0].tv_nsec = UTIME_OMIT;
        TRY(futimens(file, times));
        struct timeval old[2] = {{5, 6}, {7, 8}};
        TRY(utimes("f", old));
        stat("f", &status);
        SHOW(status.st_mtim.tv_sec);
    });
}

BEHAVIOUR(file_systems)
{
    ON(1, { struct statfs system; TRY(statfs(".", &system)); YES(system.f_bsize > 0); struct statvfs more; TRY(statvfs("/proc", &more)); TRY(fstatfs(77, &system)); });
}

BEHAVIOUR(extended_attributes)
{
    file = file_with("f", "a", 1);
    ON(1, {
        int result = setxattr("f", "user.colour", "blue", 4, 0);
        if (result == 0) {
            SHOW(getxattr("f", "user.colour", bytes, 100));
            SHOW(fgetxattr(file, "user.colour", bytes, 100));
            SHOW(listxattr("f", bytes, 100) > 0);
            TRY(removexattr("f", "user.colour"));
        }
        TRY(getxattr("f", "user.none", bytes, 100));
    });
}

BEHAVIOUR(special_files)
{
    ON(1, {
        file = open("/dev/zero", O_RDWR);
        memset(bytes, 1, 100);
        SHOW(read(file, bytes, 100));
        SHOW(bytes[50]);
        file = open("/dev/null", O_RDWR);
        SHOW(write(file, bytes, 1000));
        SHOW(read(file, bytes, 10));
        file = open("/dev/full", O_RDWR);
        TRY(write(file, bytes, 10));
        file = open("/dev/urandom", O_RDONLY);
        SHOW(read(file, bytes, 64));
        TRY(mkfifo("fifo", 0600));
        TRY(open("fifo", O_WRONLY | O_NONBLOCK));
        TRY(mknod("node", S_IFREG | 0600, 0));
    });
}

BEHAVIOUR(control_calls)
{
    static int ends[2];
    pipe(ends);
    write(ends[1], "abcde", 5);
    ON(1, { int count = 0; TRY(ioctl(ends[0], FIONREAD, &count)); SHOW(count); int on = 1; TRY(ioctl(ends[0], FIONBIO, &on)); TRY(ioctl(ends[0], TCGETS, bytes)); TRY(ioctl(ends[0], FIOCLEX)); SHOW(fcntl(ends[0], F_GETFD)); TRY(ioctl(99, FIONREAD, &count)); SHOW(isatty(ends[0])); });
}

BEHAVIOUR(watching_a_directory)
{
    static int watch;
    watch = inotify_init1(IN_NONBLOCK);
    TRY(inotify_add_watch(watch, ".", IN_CREATE | IN_DELETE));
    ON(1, { close(open("made", O_CREAT | O_RDWR, 0600)); unlink("made"); });
    ON(2, {
        ssize_t count = read(watch, bytes, sizeof bytes);
        for (char *at = bytes; at < bytes + count;) {
            struct inotify_event *event = (struct inotify_event *)at;
            say("%s %s\n", event->mask & IN_CREATE ? "create" : "delete", event->name);
            at += sizeof *event + event->len;
        }
        TRY(read(watch, bytes, sizeof bytes));
        TRY(inotify_rm_watch(watch, 99));
    });
}

BEHAVIOUR(pipes_size_and_limits_of_paths)
{
    ON(1, { memset(bytes, 'x', 5000); bytes[5000] = 0; TRY(open(bytes, O_RDONLY)); bytes[300] = 0; TRY(open(bytes, O_RDONLY)); TRY(open("", O_RDONLY)); TRY(open("none/..", O_RDONLY)); });
}

BEHAVIOUR(paths_relative_to_descriptor)
{
    mkdir("d", 0700);
    file = open("d", O_RDONLY | O_DIRECTORY);
    ON(1, { TRY(openat(file, "inside", O_CREAT | O_RDWR, 0600)); TRY(mkdirat(file, "deeper", 0700)); TRY(fstatat(file, "inside", &status, 0)); TRY(symlinkat("inside", file, "link")); SHOW(readlinkat(file, "link", bytes, 100)); TRY(linkat(file, "inside", AT_FDCWD, "outside", 0)); TRY(unlinkat(file, "deeper", AT_REMOVEDIR)); TRY(openat(1, "x", O_RDONLY)); });
    TRY(access("outside", F_OK));
}

BEHAVIOUR(stdio_from_all_hosts)
{
    static FILE *stream;
    stream = fopen("text", "w+");
    void *body(void *argument)
    {
        for (int at = 0; at < 100; at++)
            fprintf(stream, "line of thread\n");
        return argument;
    }
    on_each(3, body);
    fflush(stream);
    rewind(stream);
    int lines = 0;
    while (fgets(bytes, sizeof bytes, stream) != NULL)
        lines += strcmp(bytes, "line of thread\n") == 0;
    SHOW(lines);
    ON(1, { rewind(stream); SHOW(fgetc(stream)); FILE *other = tmpfile(); YES(other != NULL); fputs("x", other); SHOW(fclose(other)); });
}

BEHAVIOUR(temporary_names)
{
    ON(1, { char name[] = "tmp-XXXXXX"; YES(mkstemp(name) >= 0); char directory[] = "dir-XXXXXX"; YES(mkdtemp(directory) != NULL); });
}

BEHAVIOUR(direct_io_is_possible)
{
    ON(1, {
        file = open("direct", O_RDWR | O_CREAT | O_DIRECT, 0600);
        void *block = aligned_alloc(4096, 8192);
        memset(block, 5, 8192);
        if (file >= 0) {
            SHOW(pwrite(file, block, 8192, 0));
            memset(block, 0, 8192);
            SHOW(pread(file, block, 8192, 0));
            SHOW(((char *)block)[8191]);
        }
    });
}

BEHAVIOUR(file_size_limit)
{
    catch_signal(SIGXFSZ, SIG_IGN, 0);
    struct rlimit limit = {1000, RLIM_INFINITY};
    file = open("f", O_RDWR | O_CREAT, 0600);
    setrlimit(RLIMIT_FSIZE, &limit);
    ON(1, { long first = write(file, bytes, 2000); long second = write(file, bytes, 10); char name[16] = "EFBIG"; bool is_same = second == -1 && strcmp(strerrorname_np(errno), name) == 0; struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY}; setrlimit(RLIMIT_FSIZE, &none); SHOW(first); YES(is_same); });
}
