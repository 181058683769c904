#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "harness.h"
#include "io/loop.h"

static struct loop *loop;

static int open_loop(void **state)
{
    (void)state;
    harness_guard();
    return loop_new(&loop);
}

static int close_loop(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

/* ---- descriptors ---- */

/* Two pipes that are readable at once; the handler of whichever comes first does something to the other. */
struct reader {
    struct loop_io io;
    int fds[2];
    struct reader *other;
    void (*act)(struct reader *reader);
    unsigned calls;
};

static void on_readable(struct loop_io *io, uint32_t events)
{
    struct reader *reader = LOOP_OWNER(io, struct reader, io);
    assert_true((events & EPOLLIN) != 0);
    reader->calls++;
    reader->act(reader);
}

static void open_readers(struct reader *readers[2], void (*act)(struct reader *reader))
{
    for (int i = 0; i < 2; i++) {
        readers[i] = calloc(1, sizeof *readers[i]);
        assert_non_null(readers[i]);
        assert_int_equal(pipe2(readers[i]->fds, O_NONBLOCK | O_CLOEXEC), 0);
        readers[i]->io = (struct loop_io){.ready = on_readable, .fd = readers[i]->fds[0]};
        readers[i]->act = act;
        assert_int_equal(write(readers[i]->fds[1], "x", 1), 1);
        assert_int_equal(loop_add(loop, &readers[i]->io, EPOLLIN), 0);
    }
    readers[0]->other = readers[1];
    readers[1]->other = readers[0];
}

static void close_pipe(struct reader *reader)
{
    (void)close(reader->fds[0]);
    (void)close(reader->fds[1]);
}

static void remove_and_free_other(struct reader *reader)
{
    loop_remove(loop, &reader->other->io);
    assert_int_equal(reader->other->io.fd, -1);
    close_pipe(reader->other);
    free(reader->other);
    reader->other = NULL;
    loop_remove(loop, &reader->io);
    loop_stop(loop);
}

static void test_removed_in_the_same_batch_is_not_called(void **state)
{
    (void)state;
    struct reader *readers[2];
    open_readers(readers, remove_and_free_other);
    assert_int_equal(loop_run(loop), 0); /* a call into the freed one is caught by AddressSanitizer */
    struct reader *left = readers[0];    /* one of them was freed; epoll reports in the order of adding */
    assert_int_equal(left->calls, 1);
    close_pipe(left);
    free(left);
}

static void close_other(struct reader *reader)
{
    (void)close(reader->other->fds[1]);
    loop_close(loop, &reader->other->io);
    assert_int_equal(reader->other->io.fd, -1);
    free(reader->other);
    loop_close(loop, &reader->io);
    loop_close(loop, &reader->io); /* again: no effect */
    loop_stop(loop);
}

static void test_closed_in_the_same_batch_is_not_called(void **state)
{
    (void)state;
    unsigned before = harness_fd_count();
    struct reader *readers[2];
    open_readers(readers, close_other);
    assert_int_equal(loop_run(loop), 0);
    (void)close(readers[0]->fds[1]);
    free(readers[0]);
    assert_int_equal(harness_fd_count(), before);
}

static void free_itself(struct reader *reader)
{
    bool is_last = reader->other == NULL;
    if (!is_last) {
        reader->other->other = NULL;
    }
    loop_remove(loop, &reader->io);
    close_pipe(reader);
    free(reader);
    if (is_last) {
        loop_stop(loop);
    }
}

static void test_handler_may_free_itself(void **state)
{
    (void)state;
    struct reader *readers[2];
    open_readers(readers, free_itself);
    assert_int_equal(loop_run(loop), 0);
}

static void test_add_of_a_bad_descriptor_fails(void **state)
{
    (void)state;
    struct loop_io io = {.ready = on_readable, .fd = 1 << 20};
    assert_int_equal(loop_add(loop, &io, EPOLLIN), -EBADF);
    assert_int_equal(io.fd, 1 << 20);
    assert_int_equal(loop_modify(loop, &io, EPOLLIN), -EBADF);
    loop_remove(loop, &io); /* harmless */
    loop_remove(loop, &io);
}

static void stop_loop(struct reader *reader)
{
    loop_remove(loop, &reader->io);
    loop_stop(loop);
}

static void test_modify_changes_the_events(void **state)
{
    (void)state;
    struct reader *readers[2];
    open_readers(readers, stop_loop);
    assert_int_equal(loop_modify(loop, &readers[0]->io, 0), 0);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(readers[0]->calls, 0);
    assert_int_equal(readers[1]->calls, 1);
    assert_int_equal(loop_modify(loop, &readers[0]->io, EPOLLIN), 0);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(readers[0]->calls, 1);
    for (int i = 0; i < 2; i++) {
        close_pipe(readers[i]);
        free(readers[i]);
    }
}

/* ---- timers ---- */

static uint64_t fired_ms[3];
static unsigned fired;

static void on_timer(struct loop_timer *timer)
{
    assert_true(loop_now_ms(loop) >= timer->due_ms);
    fired_ms[fired++] = loop_now_ms(loop);
    if (fired == 3) {
        loop_stop(loop);
    }
}

static void test_timers_fire_in_order_after_hours(void **state)
{
    (void)state;
    struct loop_timer timers[4] = {
        {.expired = on_timer}, {.expired = on_timer}, {.expired = on_timer}, {.expired = on_timer}};
    fired = 0;
    uint64_t start = loop_now_ms(loop);
    loop_timer_set(loop, &timers[0], 7200000);
    loop_timer_set(loop, &timers[1], 100);
    loop_timer_set(loop, &timers[2], 86400000);
    loop_timer_set(loop, &timers[3], 50);
    loop_timer_cancel(loop, &timers[3]);
    assert_false(loop_timer_is_armed(&timers[3]));
    assert_true(loop_timer_is_armed(&timers[2]));
    assert_int_equal(loop_run(loop), 0);
    assert_in_range(fired_ms[0] - start, 100, 7000000);
    assert_in_range(fired_ms[1] - start, 7200000, 86000000);
    assert_true(fired_ms[2] - start >= 86400000);
}

/* ---- tasks ---- */

static unsigned turns; /* of the loop, as seen by a pipe that is always readable */
static unsigned ran_in_turn[4];
static struct loop_task tasks[4];

static void on_task(struct loop_task *task)
{
    size_t i = (size_t)(task - tasks);
    ran_in_turn[i] = turns;
    assert_null(task->next);
    if (i == 0) {
        loop_defer(loop, &tasks[1]); /* the next turn's */
        loop_defer_cancel(loop, &tasks[2]);
    }
    if (i == 1) {
        loop_stop(loop);
    }
}

static void count_turn(struct reader *reader)
{
    (void)reader;
    turns++;
    if (turns == 1) {
        loop_defer(loop, &tasks[0]);
        loop_defer(loop, &tasks[0]); /* once */
        loop_defer(loop, &tasks[2]);
        loop_defer(loop, &tasks[3]);
    }
}

static void test_tasks_run_once_at_the_end_of_their_batch(void **state)
{
    (void)state;
    struct reader *readers[2];
    open_readers(readers, count_turn);
    loop_remove(loop, &readers[1]->io);
    turns = 0;
    memset(ran_in_turn, 0, sizeof ran_in_turn);
    for (size_t i = 0; i < 4; i++) {
        tasks[i] = (struct loop_task){.run = on_task};
    }
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(ran_in_turn[0], 1);
    assert_int_equal(ran_in_turn[1], 2);
    assert_int_equal(ran_in_turn[2], 0);
    assert_int_equal(ran_in_turn[3], 1);
    loop_remove(loop, &readers[0]->io);
    for (int i = 0; i < 2; i++) {
        close_pipe(readers[i]);
        free(readers[i]);
    }
}

static void test_task_does_not_let_the_loop_sleep(void **state)
{
    (void)state;
    turns = 0;
    for (size_t i = 0; i < 4; i++) {
        tasks[i] = (struct loop_task){.run = on_task};
    }
    loop_defer(loop, &tasks[0]); /* no event and no timer: only tasks[0], then tasks[1], which stops */
    assert_int_equal(loop_run(loop), 0);
}

static void test_cancelled_tasks_leave_the_queue_whole(void **state)
{
    (void)state;
    turns = 5;
    memset(ran_in_turn, 0, sizeof ran_in_turn);
    for (size_t i = 0; i < 4; i++) {
        tasks[i] = (struct loop_task){.run = on_task};
    }
    loop_defer_cancel(loop, &tasks[3]); /* not queued: no effect */
    loop_defer(loop, &tasks[3]);
    loop_defer(loop, &tasks[2]);
    loop_defer_cancel(loop, &tasks[2]); /* the last */
    loop_defer(loop, &tasks[1]);
    loop_defer_cancel(loop, &tasks[3]); /* the first */
    loop_defer_cancel(loop, &tasks[1]); /* the only one */
    loop_defer(loop, &tasks[1]);
    assert_int_equal(loop_run(loop), 0);
    assert_int_equal(ran_in_turn[1], 5);
    assert_int_equal(ran_in_turn[2], 0);
    assert_int_equal(ran_in_turn[3], 0);
}

/* ---- the mailbox ---- */

#define THREADS 4
#define MESSAGES 5000u

struct letter {
    struct loop_msg msg;
    unsigned thread, number;
};

static unsigned received[THREADS], received_count;

static void on_letter(struct loop_msg *msg)
{
    struct letter *letter = LOOP_OWNER(msg, struct letter, msg);
    assert_int_equal(letter->number, received[letter->thread]); /* in order per sender */
    received[letter->thread]++;
    received_count++;
    free(letter);
    if (received_count == THREADS * MESSAGES) {
        loop_stop(loop);
    }
}

static void *post_letters(void *arg)
{
    for (unsigned i = 0; i < MESSAGES; i++) {
        struct letter *letter = calloc(1, sizeof *letter);
        if (letter == NULL) {
            abort();
        }
        letter->msg.run = on_letter;
        letter->thread = *(unsigned *)arg;
        letter->number = i;
        loop_post(loop, &letter->msg);
    }
    return NULL;
}

static void test_messages_of_many_threads_all_arrive_in_order(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    memset(received, 0, sizeof received);
    received_count = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, post_letters, &numbers[i]), 0);
    }
    assert_int_equal(loop_run(loop), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(received_count, THREADS * MESSAGES);
}

static void test_undelivered_messages_run_when_the_loop_is_freed(void **state)
{
    (void)state;
    unsigned number = 0;
    memset(received, 0, sizeof received);
    received_count = 0;
    assert_null(post_letters(&number));
    loop_free(loop);
    loop = NULL;
    assert_int_equal(received_count, MESSAGES);
}

/* ---- running and stopping ---- */

static void *stop_from_outside(void *arg)
{
    loop_stop(arg);
    return NULL;
}

static void test_stop_from_another_thread_wakes_the_loop(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, stop_from_outside, loop), 0);
        assert_int_equal(loop_run(loop), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

static void test_stop_before_run_returns_at_once(void **state)
{
    (void)state;
    loop_stop(loop);
    assert_int_equal(loop_run(loop), 0);
}

static void test_failing_epoll_wait_is_reported(void **state)
{
    (void)state;
    harness_fail("epoll_wait", 1, EBADF);
    assert_int_equal(loop_run(loop), -EBADF);
    harness_fail("epoll_wait", 1, EINTR); /* goes on */
    tasks[1] = (struct loop_task){.run = on_task};
    loop_defer(loop, &tasks[1]);
    assert_int_equal(loop_run(loop), 0);
    assert_true(harness_has_failed());
    harness_fail(NULL, 0, 0);
}

static void test_loop_without_memory_or_descriptors_fails(void **state)
{
    (void)state;
    unsigned before = harness_fd_count();
    struct loop *none = NULL;
    harness_fail("calloc", 1, ENOMEM);
    assert_int_equal(loop_new(&none), -ENOMEM);
    harness_fail("epoll_ctl", 1, ENOSPC);
    assert_int_equal(loop_new(&none), -ENOSPC);
    harness_fail("epoll_create1", 1, EMFILE);
    assert_int_equal(loop_new(&none), -EMFILE);
    harness_fail("eventfd", 1, EMFILE);
    assert_int_equal(loop_new(&none), -EMFILE);
    harness_fail(NULL, 0, 0);
    assert_null(none);
    assert_int_equal(harness_fd_count(), before);
    loop_free(NULL);
}

#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, open_loop, close_loop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_removed_in_the_same_batch_is_not_called),
        LOOP_TEST(test_closed_in_the_same_batch_is_not_called),
        LOOP_TEST(test_handler_may_free_itself),
        LOOP_TEST(test_add_of_a_bad_descriptor_fails),
        LOOP_TEST(test_modify_changes_the_events),
        LOOP_TEST(test_timers_fire_in_order_after_hours),
        LOOP_TEST(test_tasks_run_once_at_the_end_of_their_batch),
        LOOP_TEST(test_task_does_not_let_the_loop_sleep),
        LOOP_TEST(test_cancelled_tasks_leave_the_queue_whole),
        LOOP_TEST(test_messages_of_many_threads_all_arrive_in_order),
        LOOP_TEST(test_undelivered_messages_run_when_the_loop_is_freed),
        LOOP_TEST(test_stop_from_another_thread_wakes_the_loop),
        LOOP_TEST(test_stop_before_run_returns_at_once),
        LOOP_TEST(test_failing_epoll_wait_is_reported),
        LOOP_TEST(test_loop_without_memory_or_descriptors_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
