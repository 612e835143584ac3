/* Opens a plugin and closes it, again and again, in both scopes; then uses it from threads, and from
 * children that do not exec while the threads go on: `host PLUGIN`. No thread is inside SQLite when a
 * child is made: its locks do not outlive fork, with or without Pugmark. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OPENINGS = 8, THREADS = 4, ROUNDS = 100, CHILDREN = 4, ROUNDS_OF_CHILD = 25 };

static int (*work)(void);
static pthread_mutex_t outside = PTHREAD_MUTEX_INITIALIZER;

static void check(int well, const char *what)
{
    if (!well) {
        fprintf(stderr, "%s: %s\n", what, dlerror());
        exit(1);
    }
}

static void *open_plugin(const char *path, int scope)
{
    void *plugin = dlopen(path, RTLD_NOW | scope);
    check(plugin != NULL, path);
    *(void **)&work = dlsym(plugin, "work");
    check(work != NULL, "work");
    return plugin;
}

static void *rounds(void *result)
{
    for (int i = 0; i < ROUNDS && result; i++) {
        pthread_mutex_lock(&outside);
        if (work() != 3)
            result = NULL;
        pthread_mutex_unlock(&outside);
    }
    return result;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    pid_t children[CHILDREN];
    void *result;
    check(argc > 1, "usage");
    for (int i = 0; i < OPENINGS; i++) {
        void *plugin = open_plugin(argv[1], i % 3 == 2 ? RTLD_GLOBAL : RTLD_LOCAL);
        check(work() == 3, "a wrong sum");
        dlclose(plugin);
    }
    open_plugin(argv[1], RTLD_LOCAL);
    for (int i = 0; i < THREADS; i++)
        check(pthread_create(&threads[i], NULL, rounds, &work) == 0, "thread");
    for (int i = 0; i < CHILDREN; i++) {
        pthread_mutex_lock(&outside);
        children[i] = fork();
        pthread_mutex_unlock(&outside);
        if (children[i] == 0) {
            for (int k = 0; k < ROUNDS_OF_CHILD; k++)
                if (work() != 3)
                    _exit(1);
            exit(0);
        }
        check(children[i] > 0, "fork");
    }
    for (int i = 0; i < CHILDREN; i++) {
        int status = -1;
        waitpid(children[i], &status, 0);
        check(status == 0, "a child");
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &result);
        check(result != NULL, "a thread");
    }
    puts("all well");
    return 0;
}
