/* The library's side of pugmark/channel.h. */
#ifndef SDK_CHANNEL_H
#define SDK_CHANNEL_H

#include "sdk/meter.h"

/* So much may be spent on spans now: called by the drain, `since_ns` after the last time. */
void channels_refill(uint64_t since_ns);
/* Adds the metrics of all channels there ever were. */
void channels_measure(struct metric_list *l);

#endif
