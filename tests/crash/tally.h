/* What was sent and what was acknowledged of each body, and what a store holds of them.
 *
 * A body's number says what it is: some are doomed (their spans have an attribute that a deletion asks for), and of these
 * some are old, so that a rule of retention takes them. Numbers are taken and bodies sent from any thread;
 * everything else is for one. */
#ifndef TESTS_TALLY_H
#define TESTS_TALLY_H

#include "client.h"

enum { BODIES_MAX = 6000000 };

void tally_init(void);
/* The server's configuration, in `scratch`: the rule that takes old bodies. */
void tally_config(char *ret_path, size_t size);

/* False: there are no more. */
bool body_take(enum form form, uint32_t *ret_number);
/* Sends it once. What was refused (any status of 400 or more) must not be there afterwards. */
int body_send(struct conn *conn, uint32_t number, struct buf *scratch_body);

/* Has the server delete what is doomed and not old; the status. */
int tally_erase(const struct server *server);

struct tally {
    uint64_t strangers, lost, extra, torn, wrong, undead; /* each must be 0 */
    uint64_t erased, expired, segments;
};

uint64_t tally_acknowledged(void);
uint32_t tally_bodies(void);
/* Opens the store there, which changes it, and compares. */
struct tally tally_check(const char *dir, uint64_t random);
bool tally_is_right(const struct tally *tally);

/* So that several stories can follow the same beginning. */
void tally_save(void);
void tally_restore(void);

#endif
