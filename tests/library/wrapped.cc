// C++ exceptions, pthread_exit and cancelling pass through wrapped functions: the spans end, the destructors run.
#include <pugmark/wrap.h>

#include <cstdio>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <unistd.h>

namespace {

struct Table {
    int (*throws)(int depth, const std::string &what);
    void (*leaves)();
    void (*waits)();
};

Table table;
int destroyed;

struct Guard {
    ~Guard() { destroyed++; }
};

int throws(int depth, const std::string &what)
{
    Guard guard;
    if (depth == 0)
        throw std::runtime_error(what);
    return table.throws(depth - 1, what) + 1;
}

void leaves()
{
    Guard guard;
    pthread_exit(nullptr);
}

void waits()
{
    Guard guard;
    for (;;)
        pause();
}

const pug_method methods[] = {PUG_METHOD(Table, throws), PUG_METHOD(Table, leaves), PUG_METHOD(Table, waits)};

bool nothing_is_open()
{
    pug_context c = pug_context_current();
    return !pug_context_valid(&c);
}

} // namespace

int main()
{
    pug_counts counts = {};
    counts.size = sizeof counts;
    table = {throws, leaves, waits};
    if (PUG_WRAP_METHODS(&table, "cc.", methods) != 0 || pug_start(nullptr) != 0)
        return 2;
    for (int i = 0; i < 10; i++) {
        std::string caught;
        try {
            table.throws(3, "thrown");
        } catch (const std::exception &e) {
            caught = e.what();
        }
        if (caught != "thrown" || destroyed != 4 * (i + 1) || !nothing_is_open()) {
            std::printf("caught \"%s\", %d destroyed, %s\n", caught.c_str(), destroyed, nothing_is_open() ? "closed" : "open");
            return 1;
        }
    }
    pthread_t thread;
    destroyed = 0;
    pthread_create(&thread, nullptr, [](void *) -> void * { table.leaves(); return nullptr; }, nullptr);
    pthread_join(thread, nullptr);
    pthread_create(&thread, nullptr, [](void *) -> void * { table.waits(); return nullptr; }, nullptr);
    pthread_cancel(thread);
    void *result = nullptr;
    pthread_join(thread, &result);
    if (destroyed < 1 || result != PTHREAD_CANCELED) {
        std::printf("%d destroyed by threads that ended\n", destroyed);
        return 1;
    }
    pug_stop();
    pug_counts_read(&counts);
    std::printf("%lu spans\n", static_cast<unsigned long>(counts.recorded));
    return counts.recorded == 42 ? 0 : 1;
}
