// QEMU user-mode plugin (plugin API v1, qemu-user 7.2): counts executed aarch64 instructions by class.
// Prints the running totals when the program calls getpriority(0, 777000 + k), when it reads a clock, and once at exit.
// Runtimes that profile themselves read it where an operator begins and ends. That QEMU maps no vDSO for aarch64 makes
// every such reading a system call.
//
// build: cc -O2 -shared -fPIC -o armcount.so armcount.c
// run:   qemu-aarch64 -cpu cortex-a72 -plugin ./armcount.so -d plugin -D counts.log PROGRAM
//
// Single thread only: the inline counters are not atomic.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// The part of the plugin interface used here; Debian ships no header for it.
typedef uint64_t plugin_id;
struct qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { INLINE_ADD_U64 = 0 };
typedef void (*on_translate)(plugin_id, struct qemu_plugin_tb *);
typedef void (*on_syscall)(plugin_id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
typedef void (*on_exit)(plugin_id, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_translate);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *, uint64_t);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_syscall);
void qemu_plugin_register_atexit_cb(plugin_id, on_exit, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void qemu_plugin_outs(const char *);

#define PUBLIC __attribute__((visibility("default")))
PUBLIC int qemu_plugin_version = 1;

enum { TOTAL, LOAD_STORE, SIMD_FP, BRANCH, FMLA, DOT, CLASSES };
static const char *const names[CLASSES] = {"insns", "loadstore", "simdfp", "branch", "fmla", "dot"};
static uint64_t counts[CLASSES];

enum { SYS_CLOCK_GETTIME = 113, SYS_GETPRIORITY = 141, MARK = 777000, MARKS = 1000 };

static void print(const char *label) {
    char line[256];
    int n = snprintf(line, sizeof line, "armcount %s", label);
    for (int i = 0; i < CLASSES; i++)
        n += snprintf(line + n, sizeof line - n, " %s=%" PRIu64, names[i], counts[i]);
    snprintf(line + n, sizeof line - n, "\n");
    qemu_plugin_outs(line);
}

static int matches(uint32_t word, uint32_t mask, uint32_t value) { return (word & mask) == value; }

// Bits 28..25 give the encoding group; fmla and dot are also recognised by their own patterns.
static void classify(uint32_t word, uint64_t k[CLASSES]) {
    unsigned group = (word >> 25) & 15;
    if ((group & 5) == 4) k[LOAD_STORE]++;
    else if ((group & 7) == 7) k[SIMD_FP]++;
    else if ((group & 14) == 10) k[BRANCH]++;
    if (matches(word, 0xBFA0FC00, 0x0E20CC00) || matches(word, 0xBF80F400, 0x0F801000)) k[FMLA]++;
    if (matches(word, 0xBF20FC00, 0x0E009400) || matches(word, 0xBF20FC00, 0x2E009400) ||
        matches(word, 0x9FC0F400, 0x0F80E000)) k[DOT]++;
}

static void translate(plugin_id id, struct qemu_plugin_tb *tb) {
    (void)id;
    uint64_t k[CLASSES] = {0};
    k[TOTAL] = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < k[TOTAL]; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof word);
        classify(word, k);
    }
    for (int i = 0; i < CLASSES; i++)
        if (k[i]) qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &counts[i], k[i]);
}

static void syscall_entry(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                          uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)vcpu, (void)a1, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == SYS_CLOCK_GETTIME) print("clock");
    if (number == SYS_GETPRIORITY && a2 >= MARK && a2 < MARK + MARKS) {
        char label[32];
        snprintf(label, sizeof label, "mark%" PRIu64, a2 - MARK);
        print(label);
    }
}

static void finish(plugin_id id, void *unused) {
    (void)id, (void)unused;
    print("end");
}

PUBLIC int qemu_plugin_install(plugin_id id, const struct qemu_info_t *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_vcpu_syscall_cb(id, syscall_entry);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
