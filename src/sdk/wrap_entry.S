/* The entries of wrapped functions: begin a span, call the original, end the span.
 *
 * Every argument register is saved over the begin and restored for the call, and every register that
 * may carry a result is saved over the end. What the caller put on the stack is copied below our
 * frame: `stack_bytes` of it, from the top down so that a guard page is not jumped over, at an
 * address with the same remainder modulo 64, because over-aligned arguments may count on it.
 *
 * Entry i is 16 bytes: it takes the address of method i into a register that no argument uses and
 * joins the others. The frame is an ordinary one with the frame pointer as its base, described in
 * CFI; its personality routine (wrap.c) ends the span when an exception passes.
 *
 * Registers by the System V ABI for x86-64 (1.0) and the Procedure Call Standard for AArch64 (2024Q3).
 * x87's stack is left alone: begin and end do not use it, so long double comes back as it is. */
#include "sdk/wrap.h"

#if defined(__x86_64__) && defined(__LP64__)

#ifdef __CET__
#include <cet.h>
#else
#define _CET_ENDBR
#endif

/* In the save area at the lowest address of the frame: eight words, then eight vectors. */
#define WORDS 0
#define VECTORS 64
#define FRAME 640 /* 576, three words below the frame pointer, and what aligning takes */
#define METHOD -8(%rbp)
#define SLOT -16(%rbp)
#define WIDTH -24(%rbp) /* of the vectors in the save area: 0 16 bytes, 1 32, 2 64 */

	.hidden pug__wrap_methods
	.hidden pug__wrap_vectors
	.hidden pug__wrap_begin
	.hidden pug__wrap_end
	.hidden pug__wrap_personality

	.text
	.balign 64
	.globl pug__wrap_entries
	.hidden pug__wrap_entries
	.type pug__wrap_entries, @function
pug__wrap_entries:
	.cfi_startproc
	.set nth, 0
	.rept WRAP_ENTRIES
	.balign WRAP_ENTRY_BYTES
	endbr64
	leaq pug__wrap_methods + (nth << WRAP_METHOD_SHIFT)(%rip), %r11
	.byte 0xe9 /* jmp with 32 bits, however near */
	.long pug__wrap_common - . - 4
	.set nth, nth + 1
	.endr
	.cfi_endproc
	.size pug__wrap_entries, . - pug__wrap_entries

/* Moves vectors 0 to `last` to or from the save area at `base`. */
	.macro vectors_each instruction, store, register, bytes, base, last
	.set at, VECTORS
	.irp n, 0, 1, 2, 3, 4, 5, 6, 7
	.if \n <= \last
	.if \store
	\instruction %\register\n, at(\base)
	.else
	\instruction at(\base), %\register\n
	.endif
	.endif
	.set at, at + \bytes
	.endr
	.endm

	.macro vectors_move store, base, last
	cmpl $1, WIDTH
	ja 92f
	je 91f
	vectors_each movaps, \store, xmm, 16, \base, \last
	jmp 93f
91:
	vectors_each vmovups, \store, ymm, 32, \base, \last
	jmp 93f
92:
	vectors_each vmovups, \store, zmm, 64, \base, \last
93:
	.endm

/* WIDTH: how wide the vectors in use are. Uses eax, ecx, edx. */
	.macro width_find
	xorl %edx, %edx
	movl pug__wrap_vectors(%rip), %ecx
	testl %ecx, %ecx
	jz 83f
	cmpl $WRAP_VECTORS_YMM, %ecx
	je 82f
	movl $1, %ecx
	xgetbv
	xorl %edx, %edx
	testl $0x40, %eax /* the upper halves of zmm0 to zmm15 */
	jz 81f
	movl $2, %edx
	jmp 83f
81:
	testl $0x04, %eax /* the upper halves of ymm0 to ymm15 */
	jz 83f
82:
	movl $1, %edx
83:
	movl %edx, WIDTH
	.endm

	.balign 64
	.globl pug__wrap_common
	.hidden pug__wrap_common
	.type pug__wrap_common, @function
pug__wrap_common:
	.cfi_startproc
	.cfi_personality 0x1b, pug__wrap_personality
	movq %rax, -8(%rsp)
	movq pug__on_1@GOTPCREL(%rip), %rax
	cmpl $0, (%rax)
	movq -8(%rsp), %rax
	jne 1f
	jmpq *(%r11)
1:
	pushq %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq %rsp, %rbp
	.cfi_def_cfa_register %rbp
	subq $FRAME, %rsp
	andq $-64, %rsp
	movq %r11, METHOD
	movq $0, SLOT /* until the span has begun there is none to end */
	movq %rdi, WORDS + 0(%rsp)
	movq %rsi, WORDS + 8(%rsp)
	movq %rdx, WORDS + 16(%rsp)
	movq %rcx, WORDS + 24(%rsp)
	movq %r8, WORDS + 32(%rsp)
	movq %r9, WORDS + 40(%rsp)
	movq %rax, WORDS + 48(%rsp) /* al: vectors of a variadic call */
	movq %r10, WORDS + 56(%rsp) /* static chain */
	width_find
	vectors_move 1, %rsp, 7
	movq METHOD, %rdi
	call pug__wrap_begin
	movq %rax, SLOT

	movq %rsp, %r11
	movq METHOD, %rax
	movq 8(%rax), %rcx
	leaq 16(%rbp), %rsi
	subq %rcx, %rsp
	movq %rsp, %rax
	subq %rsi, %rax
	andl $63, %eax
	subq %rax, %rsp
	testq %rcx, %rcx
	jz 3f
2:
	movups -16(%rsi, %rcx), %xmm0
	movups %xmm0, -16(%rsp, %rcx)
	subq $16, %rcx
	jnz 2b
3:
	vectors_move 0, %r11, 7
	movq WORDS + 0(%r11), %rdi
	movq WORDS + 8(%r11), %rsi
	movq WORDS + 16(%r11), %rdx
	movq WORDS + 24(%r11), %rcx
	movq WORDS + 32(%r11), %r8
	movq WORDS + 40(%r11), %r9
	movq WORDS + 48(%r11), %rax
	movq WORDS + 56(%r11), %r10
	movq METHOD, %r11
	call *(%r11)

	leaq -FRAME(%rbp), %rsp
	andq $-64, %rsp
	movq %rax, WORDS + 0(%rsp)
	movq %rdx, WORDS + 8(%rsp)
	width_find
	vectors_move 1, %rsp, 1
	movq SLOT, %rdi
	movq $0, SLOT
	call pug__wrap_end
	vectors_move 0, %rsp, 1
	movq WORDS + 0(%rsp), %rax
	movq WORDS + 8(%rsp), %rdx
	leave
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size pug__wrap_common, . - pug__wrap_common

#elif defined(__aarch64__) && defined(__LP64__)

/* Below the frame pointer. x0 to x8 and the method, q0 to q7, the slot. */
#define FRAME 224
#define METHOD 72
#define VECTORS 80
#define SLOT 208

	.hidden pug__wrap_methods
	.hidden pug__wrap_begin
	.hidden pug__wrap_end
	.hidden pug__wrap_personality

	.text
	.balign 64
	.globl pug__wrap_entries
	.hidden pug__wrap_entries
	.type pug__wrap_entries, %function
pug__wrap_entries:
	.cfi_startproc
	.set nth, 0
	.rept WRAP_ENTRIES
	hint #34 /* bti c */
	adrp x17, pug__wrap_methods + (nth << WRAP_METHOD_SHIFT)
	add x17, x17, :lo12:pug__wrap_methods + (nth << WRAP_METHOD_SHIFT)
	b pug__wrap_common
	.set nth, nth + 1
	.endr
	.cfi_endproc
	.size pug__wrap_entries, . - pug__wrap_entries

	.balign 64
	.globl pug__wrap_common
	.hidden pug__wrap_common
	.type pug__wrap_common, %function
pug__wrap_common:
	.cfi_startproc
	.cfi_personality 0x1b, pug__wrap_personality
	adrp x16, :got:pug__on_1
	ldr x16, [x16, :got_lo12:pug__on_1]
	ldr w16, [x16]
	cbnz w16, 1f
	ldr x16, [x17]
	br x16
1:
	stp x29, x30, [sp, #-16]!
	.cfi_def_cfa_offset 16
	.cfi_offset x29, -16
	.cfi_offset x30, -8
	mov x29, sp
	.cfi_def_cfa_register x29
	sub sp, sp, #FRAME
	stp x0, x1, [sp]
	stp x2, x3, [sp, #16]
	stp x4, x5, [sp, #32]
	stp x6, x7, [sp, #48]
	stp x8, x17, [sp, #64]
	stp q0, q1, [sp, #VECTORS]
	stp q2, q3, [sp, #VECTORS + 32]
	stp q4, q5, [sp, #VECTORS + 64]
	stp q6, q7, [sp, #VECTORS + 96]
	str xzr, [sp, #SLOT]
	mov x0, x17
	bl pug__wrap_begin
	str x0, [sp, #SLOT]

	ldr x9, [sp, #METHOD]
	ldr x10, [x9, #8]
	add x11, x29, #16
	mov x12, sp
	sub sp, sp, x10
	cbz x10, 3f
2:
	sub x10, x10, #16
	ldr q16, [x11, x10]
	str q16, [sp, x10]
	cbnz x10, 2b
3:
	ldp x0, x1, [x12]
	ldp x2, x3, [x12, #16]
	ldp x4, x5, [x12, #32]
	ldp x6, x7, [x12, #48]
	ldr x8, [x12, #64]
	ldp q0, q1, [x12, #VECTORS]
	ldp q2, q3, [x12, #VECTORS + 32]
	ldp q4, q5, [x12, #VECTORS + 64]
	ldp q6, q7, [x12, #VECTORS + 96]
	ldr x16, [x9]
	blr x16

	sub sp, x29, #FRAME
	stp x0, x1, [sp]
	stp q0, q1, [sp, #VECTORS]
	stp q2, q3, [sp, #VECTORS + 32]
	ldr x0, [sp, #SLOT]
	str xzr, [sp, #SLOT]
	bl pug__wrap_end
	ldp x0, x1, [sp]
	ldp q0, q1, [sp, #VECTORS]
	ldp q2, q3, [sp, #VECTORS + 32]
	mov sp, x29
	.cfi_def_cfa_register sp
	ldp x29, x30, [sp], #16
	.cfi_def_cfa_offset 0
	.cfi_restore x29
	.cfi_restore x30
	ret
	.cfi_endproc
	.size pug__wrap_common, . - pug__wrap_common

#endif

	.section .note.GNU-stack, "", %progbits
