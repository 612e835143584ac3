#include "sdk/own_thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>

int own_thread_start(pthread_t *ret, const char *name, void *(*run)(void *arg), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(ret, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e)
        return e == EAGAIN ? ERR_NOMEM : err_from_errno(e);
    pthread_setname_np(*ret, name);
    /* Where that is not allowed it is a thread like others. What a thread of the host that runs in real
     * time would hand down is gone with it. */
    (void)pthread_setschedparam(*ret, SCHED_BATCH, &(struct sched_param){.sched_priority = 0});
    return 0;
}
