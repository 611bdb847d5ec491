#include "kernels/cuda/emulator/fiber.h"

#include <stdint.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_unpoison_memory_region(void const volatile *address, size_t bytes);
#endif

static const size_t guard_bytes = 4096;
static const size_t stack_bytes = 128 * 1024;
static uint8_t *pool;
static size_t pool_count;

bool fiber_pool_reserve(size_t count)
{
    if (count <= pool_count) return true;
    size_t each = guard_bytes + stack_bytes;
    void *memory = mmap(nullptr, each * count, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    if (pool) munmap(pool, each * pool_count);
    pool = (uint8_t *)memory;
    pool_count = count;
    for (size_t i = 0; i < count; i++) mprotect(pool + i * each, guard_bytes, PROT_NONE);
    return true;
}

void fiber_pool_forget()
{
#if defined(__SANITIZE_ADDRESS__)
    size_t each = guard_bytes + stack_bytes;
    for (size_t i = 0; i < pool_count; i++)
        __asan_unpoison_memory_region(pool + i * each + guard_bytes, stack_bytes);
#endif
}

static uint8_t *stack_of(size_t index)
{
    return pool + index * (guard_bytes + stack_bytes) + guard_bytes;
}

#if defined(__x86_64__)

/* Callee-saved registers of the System V ABI go on the old stack, the pointers change places, and
 * the new stack's come back. */
extern "C" void kiln_fiber_switch(void **from, void *to);
__asm__(".text\n"
        ".globl kiln_fiber_switch\n"
        ".hidden kiln_fiber_switch\n"
        ".type kiln_fiber_switch,@function\n"
        "kiln_fiber_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size kiln_fiber_switch,.-kiln_fiber_switch\n");

void fiber_prepare(struct fiber *f, size_t index, fiber_entry entry)
{
    /* six registers, the entry as return address, and one word so that the entry sees the stack
     * as after a call (16-byte aligned plus 8) */
    void **top = (void **)(stack_of(index) + stack_bytes);
    top -= 1;
    *top = nullptr;
    *--top = (void *)entry;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f->stack_pointer = top;
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
    kiln_fiber_switch(&from->stack_pointer, to->stack_pointer);
}

#else

void fiber_prepare(struct fiber *f, size_t index, fiber_entry entry)
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack_of(index);
    f->context.uc_stack.ss_size = stack_bytes;
    f->context.uc_link = nullptr;
    makecontext(&f->context, entry, 0);
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
    swapcontext(&from->context, &to->context);
}

#endif
