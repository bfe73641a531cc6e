/* Has libfaketime see the timed waits of librdkafka. They are those of C11, which glibc carries out past libfaketime: the deadline
 * comes from the set clock and is waited for by the right one, so an hour ahead makes each wait last an hour. */

#include <errno.h>
#include <pthread.h>
#include <threads.h>

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    /* In glibc the types of C11 are those of POSIX under another name. */
    switch (pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until)) {
    case 0:
        return thrd_success;
    case ETIMEDOUT:
        return thrd_timedout;
    default:
        return thrd_error;
    }
}
