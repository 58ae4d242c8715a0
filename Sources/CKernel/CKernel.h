// The system calls and structures that Swift cannot import from its Glibc module:
// variadic functions, GNU extensions, headers that the module leaves out. Nothing else lives here.
#ifndef CKERNEL_H
#define CKERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// MARK: GNU extensions

static inline int ck_accept4(int descriptor, struct sockaddr *address, socklen_t *length, int flags) {
    return (int)syscall(SYS_accept4, descriptor, address, length, flags);
}

// epoll_wait with a time-out in nanoseconds; a null time-out waits for ever. Systems before Linux 5.11 count in
// milliseconds: rounded up there, so that nobody is told too early.
static inline int ck_epoll_wait(int epoll, struct epoll_event *events, int capacity,
                                const struct timespec *timeout) {
    if (!timeout) return epoll_wait(epoll, events, capacity, -1);
    if (timeout->tv_sec == 0 && timeout->tv_nsec == 0) return epoll_wait(epoll, events, capacity, 0);
    int count = (int)syscall(SYS_epoll_pwait2, epoll, events, capacity, timeout, (void *)0, (size_t)0);
    if (count >= 0 || errno != ENOSYS) return count;
    int64_t milliseconds = (int64_t)timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000;
    return epoll_wait(epoll, events, capacity, milliseconds > 1 << 30 ? 1 << 30 : (int)milliseconds);
}

static inline int ck_dup3(int from, int to, int flags) { return (int)syscall(SYS_dup3, from, to, flags); }

// Reads what the system has in its memory, and fails with EAGAIN where it would have to wait for the disk.
static inline ssize_t ck_read_from_memory(int descriptor, void *buffer, size_t count, int64_t offset) {
    struct iovec part = {buffer, count};
    return preadv2(descriptor, &part, 1, offset, RWF_NOWAIT);
}

static inline int ck_fallocate(int descriptor, int mode, int64_t offset, int64_t length) {
    return (int)syscall(SYS_fallocate, descriptor, mode, offset, length);
}

static inline int ck_memfd_create(const char *name, unsigned flags) {
    return (int)syscall(SYS_memfd_create, name, flags);
}

static inline pid_t ck_gettid(void) { return (pid_t)syscall(SYS_gettid); }

static inline int ck_pin_thread(pid_t thread, unsigned cpu) {
    unsigned long mask[16] = {0};
    mask[cpu / (8 * sizeof(long))] = 1ul << (cpu % (8 * sizeof(long)));
    return (int)syscall(SYS_sched_setaffinity, thread, sizeof mask, mask);
}

static inline int ck_unpin_thread(pid_t thread) {
    unsigned long mask[16];
    memset(mask, 0xff, sizeof mask);
    return (int)syscall(SYS_sched_setaffinity, thread, sizeof mask, mask);
}

// MARK: Variadic calls

static inline int ck_open(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }
static inline int ck_fcntl(int descriptor, int command, int argument) {
    return fcntl(descriptor, command, argument);
}
static inline int ck_ioctl_int(int descriptor, unsigned long request, int *value) {
    return ioctl(descriptor, request, value);
}
static inline int ck_prctl(int option, unsigned long value) { return prctl(option, value, 0, 0, 0); }

// MARK: io_uring, without liburing

static inline int ck_io_uring_setup(unsigned entries, struct io_uring_params *parameters) {
    return (int)syscall(SYS_io_uring_setup, entries, parameters);
}

static inline int ck_io_uring_enter(int ring, unsigned submit, unsigned complete, unsigned flags,
                                    const struct __kernel_timespec *timeout) {
    struct io_uring_getevents_arg argument = {0};
    argument.ts = (uint64_t)(uintptr_t)timeout;
    return (int)syscall(SYS_io_uring_enter, ring, submit, complete, flags | IORING_ENTER_EXT_ARG, &argument,
                        sizeof argument);
}

// Asks for the request with this user data to be cancelled, and returns when it has been asked: a time-out of
// zero, since a request that a kernel thread is busy with would be waited for otherwise.
static inline int ck_io_uring_cancel(int ring, uint64_t user_data) {
    struct io_uring_sync_cancel_reg cancel;
    memset(&cancel, 0, sizeof cancel);
    cancel.addr = user_data;
    cancel.fd = -1;
    return (int)syscall(SYS_io_uring_register, ring, IORING_REGISTER_SYNC_CANCEL, &cancel, 1);
}

// Locks buffers for a ring, until it is closed.
static inline int ck_io_uring_register_buffers(int ring, const struct iovec *buffers, unsigned count) {
    return (int)syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, buffers, count);
}

// Fills a submission entry. `operation_flags` stands for the union of msg_flags, accept_flags, poll32_events.
static inline void ck_sqe_fill(struct io_uring_sqe *entry, uint8_t operation, int descriptor, uint64_t offset,
                               const void *address, uint32_t length, uint32_t operation_flags,
                               uint64_t user_data) {
    memset(entry, 0, sizeof *entry);
    entry->opcode = operation;
    entry->fd = descriptor;
    entry->off = offset;
    entry->addr = (uint64_t)(uintptr_t)address;
    entry->len = length;
    entry->msg_flags = operation_flags;
    entry->user_data = user_data;
}

// Fetches lines of the processor's cache. The memory may be gone, and an address that is none does no harm.
static inline void ck_prefetch(const void *address, int lines) {
    for (int line = 0; line < lines; line++) __builtin_prefetch((const char *)address + 64 * line, 1);
}

// Fetches what a pointer points to. The pointer may be changing meanwhile, or be no pointer at all.
__attribute__((no_sanitize("thread", "address"))) static inline void ck_prefetch_behind(const void *place, int lines) {
    ck_prefetch(*(const char *const volatile *)place, lines);
}

// MARK: The recorder's switch
// One in the process. A global of Swift would be asked at every mark whether it has been made yet.

__attribute__((weak)) _Bool ck_recording = 0;
static inline _Bool ck_is_recording(void) { return __atomic_load_n(&ck_recording, __ATOMIC_RELAXED); }
static inline void ck_set_recording(_Bool on) { __atomic_store_n(&ck_recording, on, __ATOMIC_RELAXED); }

// MARK: ThreadSanitizer
// A hand-over through the kernel's ring is invisible to the sanitizer. These tell it; they are null without it.

extern void __tsan_acquire(void *) __attribute__((weak));
extern void __tsan_release(void *) __attribute__((weak));
static inline void ck_tsan_acquire(void *address) {
    if (__tsan_acquire && address) __tsan_acquire(address);
}
static inline void ck_tsan_release(void *address) {
    if (__tsan_release && address) __tsan_release(address);
}

// Asked by the sanitizer, before anything else runs, what it is not to report; Stage links it into tests and demonstrations.
// A task that is resumed before it has suspended goes on at once, and may use its continuation's memory again. What orders it
// behind the thread that resumed it is an atomic inside of Swift's runtime, which the sanitizer does not see. Only the accesses
// that the compiler itself makes in the two functions are meant, none of what they call.
__attribute__((disable_sanitizer_instrumentation)) const char *__tsan_default_suppressions(void) {
    return "race_top:ss22withUnsafeContinuation9isolation\nrace_top:sScc6resume9returning\n";
}

#endif
