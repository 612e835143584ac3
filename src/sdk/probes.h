/* Static probes (USDT) for bpftrace, perf, SystemTap and uprobes: provider `pugmark`,
 *
 *     span_begin(name, trace id high, trace id low, span id)
 *     span_end(trace id high, trace id low, span id)
 *
 * with `name` a char pointer and the ids as numbers. A probe is a nop of 5 bytes (of 4 on AArch64), which newer kernels
 * replace by a call, and a note in the section .note.stapsdt that says where it is and where its arguments are; the
 * format is that of SystemTap's <sys/sdt.h>, version 3.
 *
 * The pair is in the library and not in every PUG_SPAN: a note for each site would be in every object file of the program, and the
 * ids are not at hand there. A tracer that attaches counts the semaphore up; the drain sees it within its interval and has the
 * lanes watched (watch.h), from each thread's next span without a parent on. Until then it costs nothing. */
#ifndef SDK_PROBES_H
#define SDK_PROBES_H

#include <stdint.h>

/* Written by the kernel. */
extern volatile unsigned short pug__probes_semaphore __attribute__((visibility("hidden")));

#if defined(__x86_64__) || defined(__aarch64__)
#if defined(__x86_64__)
#define PROBE_NOP ".byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n"
#define PROBE_ARG(n) "8@%" #n
#else
#define PROBE_NOP "nop\n"
#define PROBE_ARG(n) "8@%" #n
#endif
#define PROBE(name, args, ...)                                                                     \
    __asm__ volatile("990: " PROBE_NOP ".pushsection .note.stapsdt,\"\",\"note\"\n"                \
                     ".balign 4\n"                                                                 \
                     ".4byte 992f-991f, 994f-993f, 3\n"                                            \
                     "991: .asciz \"stapsdt\"\n"                                                   \
                     "992: .balign 4\n"                                                            \
                     "993: .8byte 990b\n"                                                          \
                     ".8byte _.stapsdt.base\n"                                                     \
                     ".8byte pug__probes_semaphore\n"                                              \
                     ".asciz \"pugmark\"\n"                                                        \
                     ".asciz \"" name "\"\n"                                                       \
                     ".asciz \"" args "\"\n"                                                       \
                     "994: .balign 4\n"                                                            \
                     ".popsection\n"                                                               \
                     ".ifndef _.stapsdt.base\n"                                                    \
                     ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"       \
                     ".weak _.stapsdt.base\n"                                                      \
                     ".hidden _.stapsdt.base\n"                                                    \
                     "_.stapsdt.base: .space 1\n"                                                  \
                     ".size _.stapsdt.base, 1\n"                                                   \
                     ".popsection\n"                                                               \
                     ".endif\n" ::__VA_ARGS__)
#define PROBE_SPAN_BEGIN(name, high, low, id)                                                      \
    PROBE("span_begin", PROBE_ARG(0) " " PROBE_ARG(1) " " PROBE_ARG(2) " " PROBE_ARG(3),           \
          "r"((uint64_t)(uintptr_t)(name)), "r"(high), "r"(low), "r"(id))
#define PROBE_SPAN_END(high, low, id)                                                              \
    PROBE("span_end", PROBE_ARG(0) " " PROBE_ARG(1) " " PROBE_ARG(2), "r"(high), "r"(low), "r"(id))
#else
#define PROBE_SPAN_BEGIN(name, high, low, id) ((void)(name), (void)(high), (void)(low), (void)(id))
#define PROBE_SPAN_END(high, low, id) ((void)(high), (void)(low), (void)(id))
#endif

#endif
