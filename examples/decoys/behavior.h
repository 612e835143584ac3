/* What the events of one attacker say about how he works: the profiler's arithmetic, without its
 * database. */
#ifndef DECOYS_BEHAVIOR_H
#define DECOYS_BEHAVIOR_H

#include "repository.h"

/* {"timing":{..},"class":"..","tools":[..],"phases":{..},"tcp":{..}}; `rows` in order of time. */
json_t *build_behavior_record(const struct log_rows *rows);
/* The record in a few words: {"class":"..","tools":2,"furthest_phase":"..","events_per_minute":3.5}
 */
json_t *behavior_summary(const json_t *record, const struct log_rows *rows);

#endif
