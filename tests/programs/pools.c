/* GLib: a thread pool, an asynchronous queue, a readers-writer lock, bit locks, GOnce, GCond with a deadline, private data.
 *
 * Owns deterministic output: integers only. Must not know hosts.
 */
#include <glib.h>

enum { JOBS = 200, CONSUMERS = 3, STEPS = 300000 };

static gint sum, bits, privates, initialised;
static guint64 counted;
static GRWLock table_lock;
static GHashTable *table;

static guint mix(guint value) {
    for (int step = 0; step < STEPS; step++) value = (value ^ (value >> 15)) * 2246822519u + step;
    return value;
}

static void forget(gpointer value) {
    g_atomic_int_add(&privates, 1);
    g_free(value);
}
static GPrivate mine = G_PRIVATE_INIT(forget);

static gpointer initialise(gpointer argument) {
    (void)argument;
    g_atomic_int_inc(&initialised);
    return GINT_TO_POINTER(42);
}
static GOnce once = G_ONCE_INIT;

static void job(gpointer item, gpointer unused) {
    (void)unused;
    guint value = mix(GPOINTER_TO_UINT(item));
    g_once(&once, initialise, NULL);
    g_atomic_int_add(&sum, (gint)(value % 1000));
    g_bit_lock(&bits, 3);
    counted++;
    g_bit_unlock(&bits, 3);
    gpointer key = GUINT_TO_POINTER(value % 16 + 1);
    g_rw_lock_reader_lock(&table_lock);
    gboolean known = g_hash_table_contains(table, key);
    g_rw_lock_reader_unlock(&table_lock);
    if (!known) {
        g_rw_lock_writer_lock(&table_lock);
        g_hash_table_insert(table, key, g_strdup_printf("%u", value));
        g_rw_lock_writer_unlock(&table_lock);
    }
}

static gpointer consumer(gpointer queue) {
    g_private_set(&mine, g_malloc(64));
    guint got = 0;
    for (;;) {
        guint item = GPOINTER_TO_UINT(g_async_queue_pop(queue));
        if (item == G_MAXUINT) return GUINT_TO_POINTER(got);
        got += mix(item) % 1000;
    }
}

int main(void) {
    g_rw_lock_init(&table_lock);
    table = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    GThreadPool *pool = g_thread_pool_new(job, NULL, 4, TRUE, NULL);
    for (guint i = 1; i <= JOBS; i++) g_thread_pool_push(pool, GUINT_TO_POINTER(i), NULL);
    g_thread_pool_free(pool, FALSE, TRUE);
    g_print("pool %d counted %" G_GUINT64_FORMAT " keys %u initialised %d\n", sum, counted, g_hash_table_size(table), initialised);

    GAsyncQueue *queue = g_async_queue_new();
    GThread *threads[CONSUMERS];
    guint total = 0;
    for (int i = 0; i < CONSUMERS; i++) threads[i] = g_thread_new("consumer", consumer, queue);
    for (guint i = 0; i < JOBS; i++) g_async_queue_push(queue, GUINT_TO_POINTER(i + 1));
    for (int i = 0; i < CONSUMERS; i++) g_async_queue_push(queue, GUINT_TO_POINTER(G_MAXUINT));
    for (int i = 0; i < CONSUMERS; i++) total += GPOINTER_TO_UINT(g_thread_join(threads[i]));
    g_print("queue %u privates %d\n", total, privates);

    GMutex lock;
    GCond never;
    g_mutex_init(&lock);
    g_cond_init(&never);
    g_mutex_lock(&lock);
    gboolean woken = g_cond_wait_until(&never, &lock, g_get_monotonic_time() + 20 * G_TIME_SPAN_MILLISECOND);
    g_mutex_unlock(&lock);
    g_print("deadline %s\n", woken ? "woken" : "passed");
    return 0;
}
