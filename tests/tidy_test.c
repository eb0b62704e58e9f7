/* SPDX-License-Identifier: MIT */
/*
 * tidy_test.c -- the rules of the house that a machine can hold, read off the tree and the
 * libraries themselves.
 *
 * A broken rule is printed as FILE:LINE: sentence, all of them before the test fails. The build
 * says by compile definitions where the tree, the two libraries and its tools are, and what is
 * linked.
 */
#define CHECK_MAIN
#include "tests/check.h"

#include <ctype.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "mem/alloc.h"

#define COLUMNS_MAX 100
#define FUNCTION_LINES_MAX 70

/* The rooms, lowest first: a file may include headers of its own room and of those before it. */
static const char *const rooms[] = { "mem", "sched", "io", "runtime", NULL };

/* The structures of Concurrency Kit that are sound in the oldest release that we support; the epoch
 * with a full fence before ck_epoch_call(), the hash set with one writer at a time. */
static const char *const ck_sound[] = { "ck_cc.h",       "ck_md.h",    "ck_pr.h", "ck_stack.h",
                                        "ck_spinlock.h", "ck_epoch.h", "ck_hs.h", NULL };

/* What may be linked, and the header whose inclusion shows that it is used. */
static const struct {
    const char *target, *header;
} packages[] = {
    { "PkgConfig::reeve_uring", "liburing.h" },
    { "PkgConfig::reeve_ck", "ck_" },
    { "reeve_mimalloc", "mimalloc.h" },
    { "Threads::Threads", "pthread.h" },
    { "PkgConfig::reeve_cares", "ares.h" },
};

struct file {
    char path[512]; /* below the root: "sched/deque.c" */
    char *text;
    char *code; /* the text with comments and the insides of literals blanked */
};

static struct {
    struct file *file;
    size_t count, cap;
} tree;

static int complaints;

static void __attribute__((format(printf, 3, 4)))
complain(const char *path, int line, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "%s:%d: ", path, line);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    complaints++;
}

/* ---- reading the tree ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t a = strlen(s), b = strlen(end);
    return a >= b && strcmp(s + a - b, end) == 0;
}

static bool starts_with(const char *s, const char *start)
{
    return strncmp(s, start, strlen(start)) == 0;
}

static bool is_listed(const char *s, const char *const list[])
{
    for (size_t i = 0; list[i]; i++)
        if (strcmp(s, list[i]) == 0)
            return true;
    return false;
}

static bool is_source(const char *path)
{
    return ends_with(path, ".c") || ends_with(path, ".h") || ends_with(path, ".S");
}

/* The index of the room that a path begins with, or -1. */
static int room_of(const char *path)
{
    for (int i = 0; rooms[i]; i++) {
        size_t len = strlen(rooms[i]);
        if (strncmp(path, rooms[i], len) == 0 && path[len] == '/')
            return i;
    }
    return -1;
}

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return NULL;
    size_t len = 0, cap = 1 << 16, n;
    char *text = malloc(cap);
    CHECK(text);
    while ((n = fread(text + len, 1, cap - 1 - len, f)) > 0) {
        len += n;
        if (len == cap - 1)
            text = realloc(text, cap *= 2);
        CHECK(text);
    }
    fclose(f);
    text[len] = '\0';
    return text;
}

/* Blanks comments and the insides of literals; keeps every newline, so line numbers hold. Include
 * lines keep what they name. */
static char *code_of(const char *text)
{
    char *code = strdup(text);
    CHECK(code);
    enum { CODE, BLOCK, LINE, STRING, CHAR } in = CODE;
    for (char *p = code; *p; p++) {
        char quote = in == STRING ? '"' : '\'';
        if (in == CODE && *p == '#') {
            char *word = p + 1 + strspn(p + 1, " \t");
            if (starts_with(word, "include"))
                p += strcspn(p, "\n") - 1;
        } else if (in == CODE && p[0] == '/' && (p[1] == '*' || p[1] == '/')) {
            in = p[1] == '*' ? BLOCK : LINE;
            p[0] = p[1] = ' ';
            p++;
        } else if (in == BLOCK && p[0] == '*' && p[1] == '/') {
            in = CODE;
            p[0] = p[1] = ' ';
            p++;
        } else if (in == LINE && *p == '\n') {
            in = CODE;
        } else if (in == CODE && (*p == '"' || *p == '\'')) {
            in = *p == '"' ? STRING : CHAR;
        } else if ((in == STRING || in == CHAR) && *p == quote) {
            in = CODE;
        } else if (in != CODE && *p != '\n') {
            if (*p == '\\' && in >= STRING && p[1] && p[1] != '\n')
                *p++ = ' ';
            *p = ' ';
        }
    }
    return code;
}

static void add_file(const char *path)
{
    char full[1024];
    snprintf(full, sizeof full, "%s/%s", TIDY_ROOT, path);
    if (tree.count == tree.cap) {
        tree.cap = tree.cap ? 2 * tree.cap : 64;
        tree.file = realloc(tree.file, tree.cap * sizeof *tree.file);
        CHECK(tree.file);
    }
    struct file *f = &tree.file[tree.count++];
    snprintf(f->path, sizeof f->path, "%s", path);
    f->text = read_all(full);
    CHECK(f->text);
    f->code = code_of(f->text);
}

/* Adds every C, header and assembly file below a folder of the root. */
static void add_folder(const char *folder)
{
    char full[1024], path[512];
    snprintf(full, sizeof full, "%s/%s", TIDY_ROOT, folder);
    DIR *dir = opendir(full);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        int n = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        CHECK_LT(n, (int)sizeof path);
        struct stat st;
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISDIR(st.st_mode))
            add_folder(path);
        else if (S_ISREG(st.st_mode) && is_source(path))
            add_file(path);
    }
    if (dir)
        closedir(dir);
}

static void read_tree(void)
{
    for (int i = 0; rooms[i]; i++)
        add_folder(rooms[i]);
    add_folder("include");
    add_folder("tests");
    add_folder("examples");
    CHECK_GT(tree.count, 0);
}

/* Frees the tree and passes judgement. */
static void finish(void)
{
    for (size_t i = 0; i < tree.count; i++) {
        free(tree.file[i].text);
        free(tree.file[i].code);
    }
    free(tree.file);
    CHECK_EQ(complaints, 0);
}

/* Calls visit for each line of a text, without its newline. */
static void each_line(const struct file *f, const char *text,
                      void (*visit)(const struct file *f, int line, const char *s))
{
    char buf[4096];
    int line = 1;
    for (const char *p = text; *p; line++) {
        size_t len = strcspn(p, "\n");
        CHECK_LT(len, sizeof buf);
        memcpy(buf, p, len);
        buf[len] = '\0';
        visit(f, line, buf);
        p += len + (p[len] == '\n');
    }
}

/* What an include line names, "mem/slab.h" or <stdio.h>, with its quotes; "" on other lines. */
static const char *included(const char *line, char *buf, size_t cap)
{
    const char *p = line + strspn(line, " \t");
    buf[0] = '\0';
    if (*p++ != '#')
        return buf;
    p += strspn(p, " \t");
    if (!starts_with(p, "include"))
        return buf;
    p += strlen("include");
    p += strspn(p, " \t");
    if (*p == '"' || *p == '<')
        snprintf(buf, cap, "%.*s", (int)(1 + strcspn(p + 1, "\">") + 1), p);
    return buf;
}

/* ---- the layout ---- */

static bool holds_source(const char *folder)
{
    size_t before = tree.count;
    add_folder(folder);
    return tree.count > before;
}

TEST(the_top_level_has_no_other_source_folder)
{
    static const char *const known[] = { "runtime",  "io",   "sched",   "mem",   "tests",
                                         "examples", "docs", "include", "cmake", NULL };
    DIR *dir = opendir(TIDY_ROOT);
    CHECK(dir);
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        const char *name = entry->d_name;
        struct stat st;
        if (name[0] == '.' || starts_with(name, "build") || is_listed(name, known))
            continue;
        if (fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISDIR(st.st_mode) && holds_source(name))
            complain(name, 0, "is not one of the folders that hold source");
        if (S_ISREG(st.st_mode) && is_source(name))
            complain(name, 0, "is source at the top level");
    }
    closedir(dir);
    finish();
}

static void check_include(const struct file *f, int line, const char *s)
{
    char what[512];
    int own = room_of(f->path);
    included(s, what, sizeof what);
    if (what[0] == '<' && own < 0 && starts_with(f->path, "include/"))
        return;
    if (what[0] != '"')
        return;
    int room = room_of(what + 1);
    if (own < 0)
        complain(f->path, line, "a public header includes %s", what);
    else if (room < 0)
        complain(f->path, line, "%s does not name its folder from the root", what);
    else if (room > own)
        complain(f->path, line, "%s lies above %s", what, rooms[own]);
}

TEST(includes_point_only_downwards)
{
    read_tree();
    for (size_t i = 0; i < tree.count; i++) {
        const struct file *f = &tree.file[i];
        if (room_of(f->path) >= 0 || starts_with(f->path, "include/"))
            each_line(f, f->code, check_include);
    }
    finish();
}

/* ---- the shape of files ---- */

static void check_columns(const struct file *f, int line, const char *s)
{
    int columns = 0;
    for (const char *p = s; *p; p++)
        columns += ((unsigned char)*p & 0xc0) != 0x80; /* not inside a UTF-8 sequence */
    if (columns > COLUMNS_MAX)
        complain(f->path, line, "has %d columns, %d are allowed", columns, COLUMNS_MAX);
    if (s[0] && isspace((unsigned char)s[strlen(s) - 1]))
        complain(f->path, line, "ends in a blank");
    if (strchr(s, '\t') && !ends_with(f->path, ".S"))
        complain(f->path, line, "holds a tab");
}

TEST(no_line_is_longer_than_100_columns)
{
    read_tree();
    for (size_t i = 0; i < tree.count; i++)
        each_line(&tree.file[i], tree.file[i].text, check_columns);
    finish();
}

static void check_function(const struct file *f, int line, const char *s)
{
    static int opened; /* the line of the brace that opened the function, 0 outside */
    if (line == 1)
        opened = 0;
    if (s[0] == '{')
        opened = line;
    if (s[0] != '}' || !opened)
        return;
    if (line - opened + 1 > FUNCTION_LINES_MAX)
        complain(f->path, opened, "a function of %d lines, %d are allowed", line - opened + 1,
                 FUNCTION_LINES_MAX);
    opened = 0;
}

TEST(no_function_is_longer_than_70_lines)
{
    read_tree();
    for (size_t i = 0; i < tree.count; i++) {
        const struct file *f = &tree.file[i];
        if (room_of(f->path) >= 0 || starts_with(f->path, "examples/") ||
            starts_with(f->path, "tests/bench/"))
            each_line(f, f->code, check_function);
    }
    finish();
}

static void check_opening(const struct file *f)
{
    static const char licence[] = "/* SPDX-License-Identifier: MIT */\n";
    if (!starts_with(f->text, licence)) {
        complain(f->path, 1, "does not open with its licence line");
        return;
    }
    const char *comment = f->text + strlen(licence);
    if (!starts_with(comment, "/*")) {
        complain(f->path, 2, "has no opening comment that says what it is");
        return;
    }
    if (room_of(f->path) < 0 && !starts_with(f->path, "include/"))
        return;
    char name[600], head[1024];
    snprintf(name, sizeof name, "%s -- ", strrchr(f->path, '/') + 1);
    snprintf(head, sizeof head, "%.*s", 200, comment);
    if (!strstr(head, name))
        complain(f->path, 2, "its opening comment does not begin with \"%s\"", name);
}

TEST(every_file_opens_with_its_licence_and_its_idea)
{
    read_tree();
    for (size_t i = 0; i < tree.count; i++)
        check_opening(&tree.file[i]);
    finish();
}

static void check_left_over(const struct file *f, int line, const char *s)
{
    static const char *const words[] = { "TODO", "FIXME", "XXX", "for now", "placeholder", NULL };
    for (int i = 0; words[i]; i++)
        if (strstr(s, words[i]))
            complain(f->path, line, "says \"%s\"", words[i]);
}

TEST(nothing_is_left_for_later)
{
    read_tree();
    for (size_t i = 0; i < tree.count; i++)
        if (room_of(tree.file[i].path) >= 0 || starts_with(tree.file[i].path, "include/"))
            each_line(&tree.file[i], tree.file[i].text, check_left_over);
    finish();
}

/* ---- what the code may use ---- */

/* Where nothing could wake a waiter: the kernel gives locked memory back some time after a ring was
 * closed and tells nobody; the holder of a slot's lock, a bit without room for waiters, may have
 * been preempted; nobody is told that a program, which the simulator waits for, has gone to sleep;
 * and what stands still on purpose waits for nothing. */
static bool may_sleep(const char *path, const char *call)
{
    return (strcmp(path, "io/ring.c") == 0 && strcmp(call, "nanosleep") == 0) ||
           (strcmp(path, "mem/stall.c") == 0 && strcmp(call, "nanosleep") == 0) ||
           (strcmp(path, "io/fdtab.c") == 0 && strcmp(call, "sched_yield") == 0) ||
           (strcmp(path, "io/sim_real.c") == 0 && strcmp(call, "sched_yield") == 0);
}

static void check_sleep(const struct file *f, int line, const char *s)
{
    static const char *const sleeps[] = { "sleep",           "usleep",      "nanosleep",
                                          "clock_nanosleep", "sched_yield", "thrd_sleep",
                                          "thrd_yield",      NULL };
    for (int i = 0; sleeps[i]; i++)
        for (const char *p = s; (p = strstr(p, sleeps[i])); p++) {
            const char *end = p + strlen(sleeps[i]);
            bool whole = p == s || !(isalnum((unsigned char)p[-1]) || p[-1] == '_');
            if (whole && end[strspn(end, " ")] == '(' && !may_sleep(f->path, sleeps[i]))
                complain(f->path, line, "calls %s: a wait belongs in the engine", sleeps[i]);
        }
}

TEST(the_library_never_sleeps)
{
    read_tree();
    for (size_t i = 0; i < tree.count; i++)
        if (room_of(tree.file[i].path) >= 0)
            each_line(&tree.file[i], tree.file[i].code, check_sleep);
    finish();
}

static void check_ck(const struct file *f, int line, const char *s)
{
    char what[512];
    included(s, what, sizeof what);
    if (what[0] != '<' || !starts_with(what + 1, "ck_"))
        return;
    what[strcspn(what, ">")] = '\0';
    if (!is_listed(what + 1, ck_sound))
        complain(f->path, line, "%s is not on the list of sound structures", what + 1);
}

TEST(of_concurrency_kit_only_what_is_sound_is_used)
{
    read_tree();
    for (size_t i = 0; i < tree.count; i++)
        if (room_of(tree.file[i].path) >= 0)
            each_line(&tree.file[i], tree.file[i].code, check_ck);
    finish();
}

static bool some_file_includes(const char *header)
{
    char text[64];
    snprintf(text, sizeof text, "#include <%s", header);
    for (size_t i = 0; i < tree.count; i++)
        if (room_of(tree.file[i].path) >= 0 && strstr(tree.file[i].code, text))
            return true;
    return false;
}

TEST(every_linked_package_is_used)
{
    read_tree();
    char linked[] = TIDY_LINKED;
    for (char *target = strtok(linked, " "); target; target = strtok(NULL, " ")) {
        const char *header = NULL;
        for (size_t i = 0; i < sizeof packages / sizeof packages[0]; i++)
            if (strcmp(target, packages[i].target) == 0)
                header = packages[i].header;
        if (!header)
            complain("CMakeLists.txt", 0, "links %s, which this test does not know", target);
        else if (!some_file_includes(header))
            complain("CMakeLists.txt", 0, "links %s, but nothing includes %s", target, header);
    }
    finish();
}

/* ---- the libraries ---- */

/* Calls visit with each symbol that nm prints. */
static void each_symbol(const char *options, const char *library, void (*visit)(const char *name))
{
    char command[1024], line[1024], type, name[512];
    snprintf(command, sizeof command, "%s %s '%s'", TIDY_NM, options, library);
    FILE *nm = popen(command, "r");
    CHECK(nm);
    int symbols = 0;
    while (fgets(line, sizeof line, nm)) {
        if (strstr(line, ":\n") || sscanf(line, "%*x %c %511s", &type, name) != 2)
            continue; /* a member's heading, or no symbol */
        visit(name);
        symbols++;
    }
    CHECK_EQ(pclose(nm), 0);
    CHECK_GT(symbols, 0);
}

static void check_exported(const char *name)
{
    if (!starts_with(name, "reeve_"))
        complain(TIDY_SHARED, 0, "exports %s", name);
}

TEST(the_shared_library_exports_reeve_names_only)
{
    each_symbol("-D --defined-only", TIDY_SHARED, check_exported);
    finish();
}

static void check_internal(const char *name)
{
    bool instrument = starts_with(name, "__odr_asan.") || starts_with(name, "__gcov") ||
                      starts_with(name, "__cyg_profile_");
    if (!starts_with(name, "reeve_") && !starts_with(name, "rv_") && !instrument)
        complain(TIDY_STATIC, 0, "%s would be visible in every program that links it", name);
}

TEST(names_that_cross_files_begin_with_rv_or_reeve)
{
    each_symbol("-g --defined-only", TIDY_STATIC, check_internal);
    finish();
}

/* Calls visit with each line of the shared library's code, and with the function that it is in. */
static void each_instruction(void (*visit)(const char *function, const char *line))
{
    char command[1024], line[1024], function[512] = "";
    snprintf(command, sizeof command, "%s -d --no-show-raw-insn '%s'", TIDY_OBJDUMP, TIDY_SHARED);
    FILE *objdump = popen(command, "r");
    CHECK(objdump);
    int functions = 0;
    while (fgets(line, sizeof line, objdump)) {
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%*x <%511[^>]>:", function) == 1)
            functions++;
        else
            visit(function, line);
    }
    CHECK_EQ(pclose(objdump), 0);
    CHECK_GT(functions, 100);
}

static int thread_local_uses;

/* The two of mem/local.c, and those calls of mem/pool.c and mem/sizes.c that read the word in their
 * own line (rv_local_peek) and neither suspend nor are inlined into what does. */
static const char *const thread_local_users[] = {
    "rv_local_get", "rv_local_set",        "reeve_pool_borrow", "reeve_pool_return",
    "reeve_alloc",  "reeve_alloc_aligned", "reeve_free",        NULL,
};

/* What is reached through %fs is thread-local; at 0x28 is the stack protector's word. */
static void check_thread_local(const char *function, const char *line)
{
    const char *use = strstr(line, "%fs:");
    if (!use || starts_with(use, "%fs:0x28"))
        return;
    thread_local_uses++;
    if (!is_listed(function, thread_local_users))
        complain(TIDY_SHARED, 0, "%s has a thread's word of its own: %s", function, line);
}

/* Whatever the compiler has inlined, in one file or, at link time, over all of them: a task that
 * has moved to another thread must find that one's word. */
TEST(only_a_few_functions_touch_thread_local_memory)
{
#if !defined(__x86_64__)
    SKIP("it knows the instructions of x86-64 only");
#endif
    if (TIDY_SANITIZE[0])
        SKIP("a sanitizer keeps words of its own there");
    each_instruction(check_thread_local);
    CHECK_GE(thread_local_uses, 2);
    finish();
}

static void *shared; /* the library, loaded */

/* Every name that a public header declares with REEVE_API must be in it. */
static void check_declared(const struct file *f, int line, const char *s)
{
    if (!starts_with(s, "REEVE_API "))
        return;
    const char *open = strchr(s, '(');
    if (!open) {
        complain(f->path, line, "the declaration's name is not on the line of REEVE_API");
        return;
    }
    const char *start = open;
    while (isalnum((unsigned char)start[-1]) || start[-1] == '_')
        start--;
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)(open - start), start);
    if (!dlsym(shared, name))
        complain(f->path, line, "%s is declared, but not in the shared library", name);
}

TEST(every_function_of_the_manual_is_in_the_shared_library)
{
    shared = dlopen(TIDY_SHARED, RTLD_LAZY | RTLD_LOCAL);
    if (!shared)
        check_failed(TIDY_SHARED, 0, "cannot be loaded: %s", dlerror());
    read_tree();
    for (size_t i = 0; i < tree.count; i++)
        if (starts_with(tree.file[i].path, "include/"))
            each_line(&tree.file[i], tree.file[i].code, check_declared);
    dlclose(shared);
    finish();
}

TEST(malloc_stays_the_hosts_own)
{
    if (TIDY_SANITIZE[0])
        SKIP("a sanitizer's malloc is in its place");
    void *block = rv_alloc(1); /* so that this program needs what the library takes memory from */
    Dl_info malloc_in, puts_in;
    CHECK(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &malloc_in));
    CHECK(dladdr(dlsym(RTLD_DEFAULT, "puts"), &puts_in));
    CHECK_STR_EQ(malloc_in.dli_fname, puts_in.dli_fname);
    rv_free(block);
}

/* ---- the papers ---- */

/* What stands between ```c and ``` in the README first must stand in the example. */
TEST(the_readme_shows_the_first_example_as_it_is)
{
    char *readme = read_all(TIDY_ROOT "/README.md");
    char *example = read_all(TIDY_ROOT "/examples/01_echo.c");
    CHECK(readme);
    CHECK(example);
    char *shown = strstr(readme, "```c\n");
    CHECK(shown);
    shown += strlen("```c\n");
    char *end = strstr(shown, "```");
    CHECK(end);
    *end = '\0';
    if (!strstr(example, shown))
        complain("README.md", 0, "its echo server is not the one in examples/01_echo.c");
    free(readme);
    free(example);
    finish();
}

/* "sched/deque.c" as it stands in the map: itself, or "sched/deque.[ch]". */
static bool map_names(const char *map, const char *path)
{
    char both[600];
    snprintf(both, sizeof both, "%.*s.[ch]`", (int)(strrchr(path, '.') - path), path);
    if (!ends_with(path, ".S") && strstr(map, both))
        return true;
    snprintf(both, sizeof both, "%s`", path);
    return strstr(map, both) != NULL;
}

static void check_exists(const struct file *f, int line, const char *path)
{
    char full[1024];
    snprintf(full, sizeof full, "%s/%s", TIDY_ROOT, path);
    if (access(full, R_OK) < 0)
        complain(f->path, line, "names %s, which is not there", path);
}

/* Each file that the map names between back quotes must be there. */
static void check_named(const struct file *f, int line, const char *s)
{
    const char *p = s;
    while ((p = strchr(p, '`'))) {
        char path[512];
        size_t len = strcspn(p + 1, "`");
        snprintf(path, sizeof path, "%.*s", (int)len, p + 1);
        p += 1 + len + (p[1 + len] == '`');
        if (room_of(path) < 0 || !strchr(path, '.'))
            continue;
        if (ends_with(path, ".[ch]")) {
            strcpy(strrchr(path, '['), "c");
            check_exists(f, line, path);
            strcpy(strrchr(path, 'c'), "h");
        }
        check_exists(f, line, path);
    }
}

TEST(the_architecture_names_every_file_and_no_other)
{
    read_tree();
    struct file map = { .path = "docs/architecture.md" };
    map.text = read_all(TIDY_ROOT "/docs/architecture.md");
    CHECK(map.text);
    for (size_t i = 0; i < tree.count; i++)
        if (room_of(tree.file[i].path) >= 0 && !map_names(map.text, tree.file[i].path))
            complain(map.path, 0, "does not name %s", tree.file[i].path);
    each_line(&map, map.text, check_named);
    free(map.text);
    finish();
}
