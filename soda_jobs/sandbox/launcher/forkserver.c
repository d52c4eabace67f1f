/* A warm interpreter: loaded before Python's own libraries, it stops Python just before it opens the program's file
 * and from there makes a copy for each program. What went before is Python's own start of `python main.py`.
 *
 * SODA_WAIT_FOR names that file, SODA_PRELOAD modules to import before.
 */
#define _GNU_SOURCE
#include "jail.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default"))) /* found before the C library's own */
#define LIBRARY 4 /* the descriptor by which the launcher named this library */

#define MAX_KEPT 256
#define FILE_INPUT 257 /* Py_file_input */

static char awaited[256], preloaded[512];

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("SODA_WAIT_FOR"), *modules = getenv("SODA_PRELOAD");
    snprintf(awaited, sizeof awaited, "%s", file ? file : "");
    snprintf(preloaded, sizeof preloaded, "%s", modules ? modules : "");
    if (*awaited)
        close(LIBRARY);
    unsetenv("LD_PRELOAD");
    unsetenv("SODA_WAIT_FOR");
    unsetenv("SODA_PRELOAD");
}

/* Functions of Python, which is not there at compile time; an interpreter that hides one goes without all. */
typedef void object;
static struct {
    object *(*import_module)(const char *);
    object *(*import_modules)(void);
    object *(*of_system)(const char *);
    object *(*call)(object *, const char *, const char *, ...);
    object *(*function)(void *, object *, object *);
    object *(*item)(object *, object *);
    int (*next)(object *, ssize_t *, object **, object **);
    int (*forget)(object *, object *);
    int (*forget_text)(object *, const char *);
    object *(*boolean)(long);
    void (*keep)(object *);
    void (*let_go)(object *);
    void (*clear_error)(void);
    int (*take_lock)(void);
    void (*leave_lock)(int);
    object *(*interpreter)(void);
    object *(*own_data)(object *);
    object *(*capsule)(void *, const char *, void (*)(object *));
    int (*set_text)(object *, const char *, object *);
    object *(*module)(const char *);
    object *(*names_of)(object *);
    object *(*new_module)(const char *);
    int (*update)(object *, object *);
    object *(*text)(const char *);
    object *(*run)(FILE *, const char *, int, object *, object *, int, void *);
    object *(*error)(void);
    int (*is_kind)(object *, object *);
    void (*fetch)(object **, object **, object **);
    void (*normalize)(object **, object **, object **);
    void (*restore)(object *, object *, object *);
    object *(*attribute)(object *, const char *);
    long (*number)(object *);
    void (*print_error)(void);
    int (*finalize)(void);
    object **system_exit, **interrupt, *none;
} python;

static const struct {
    void *to;
    const char *name;
} FUNCTIONS[] = {
    {&python.import_module, "PyImport_ImportModule"},
    {&python.import_modules, "PyImport_GetModuleDict"},
    {&python.of_system, "PySys_GetObject"},
    {&python.call, "PyObject_CallMethod"},
    {&python.function, "PyCFunction_NewEx"},
    {&python.item, "PyDict_GetItem"},
    {&python.next, "PyDict_Next"},
    {&python.forget, "PyDict_DelItem"},
    {&python.forget_text, "PyDict_DelItemString"},
    {&python.boolean, "PyBool_FromLong"},
    {&python.keep, "Py_IncRef"},
    {&python.let_go, "Py_DecRef"},
    {&python.clear_error, "PyErr_Clear"},
    {&python.take_lock, "PyGILState_Ensure"},
    {&python.leave_lock, "PyGILState_Release"},
    {&python.interpreter, "PyInterpreterState_Get"},
    {&python.own_data, "PyInterpreterState_GetDict"},
    {&python.capsule, "PyCapsule_New"},
    {&python.set_text, "PyDict_SetItemString"},
    {&python.module, "PyImport_AddModule"},
    {&python.names_of, "PyModule_GetDict"},
    {&python.new_module, "PyModule_New"},
    {&python.update, "PyDict_Update"},
    {&python.text, "PyUnicode_DecodeFSDefault"},
    {&python.run, "PyRun_FileExFlags"},
    {&python.error, "PyErr_Occurred"},
    {&python.is_kind, "PyErr_GivenExceptionMatches"},
    {&python.fetch, "PyErr_Fetch"},
    {&python.normalize, "PyErr_NormalizeException"},
    {&python.restore, "PyErr_Restore"},
    {&python.attribute, "PyObject_GetAttrString"},
    {&python.number, "PyLong_AsLong"},
    {&python.print_error, "PyErr_Print"},
    {&python.finalize, "Py_FinalizeEx"},
    {&python.system_exit, "PyExc_SystemExit"},
    {&python.interrupt, "PyExc_KeyboardInterrupt"},
    {&python.none, "_Py_NoneStruct"},
};

static bool find_functions(void) {
    for (unsigned i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        void *found = dlsym(RTLD_DEFAULT, FUNCTIONS[i].name);
        if (!found)
            return false;
        memcpy(FUNCTIONS[i].to, &found, sizeof found);
    }
    return true;
}

/* Modules that were there before the program. */
static struct {
    object *name, *module;
} kept[MAX_KEPT];
static int kept_count;

/* -- the end of a program
 *
 * Python runs all that a program can see of its end: threads, atexit, what its objects do when they go. Then it takes
 * itself apart, and for a copy that is two thirds of a short program's time, each object let go of being a page to
 * copy. So a copy keeps its modules and leaves when Python clears its own data, where the exit code is certain. */

static int exit_code = -1; /* -1: not certain; then Python goes all the way and says */

static void leave(object *capsule) {
    (void)capsule;
    if (exit_code >= 0)
        exit(exit_code);
}

static bool is_flushed(const char *name) {
    object *stream = python.of_system(name);
    return stream && (stream == python.none || python.call(stream, "flush", NULL));
}

/* The last of what is registered with atexit. */
static object *leave_modules(object *self, object *arguments) {
    (void)self, (void)arguments;
    object *modules = python.import_modules();
    if (!is_flushed("stdout") || !is_flushed("stderr"))
        exit_code = -1; /* Python has its own code for output that is lost */
    python.clear_error();
    for (int i = 0; modules && i < kept_count; i++)
        if (python.item(modules, kept[i].name) == kept[i].module && python.forget(modules, kept[i].name) < 0)
            python.clear_error();
    return python.boolean(1);
}

/* The exit code of a SystemExit that is set; -1 when only Python knows. */
static int code_of_error(bool *is_interrupt) {
    object *kind, *value, *trace, *code;
    int found = -1; /* a hook of the program may yet leave with another */
    python.fetch(&kind, &value, &trace);
    python.normalize(&kind, &value, &trace);
    *is_interrupt = python.is_kind(kind, *python.interrupt);
    if (python.is_kind(kind, *python.system_exit)) {
        code = python.attribute(value, "code");
        long number = !code || code == python.none ? 0 : python.number(code);
        found = !code || python.error() ? -1 : (int)(number & 0xff);
        python.clear_error();
    }
    python.restore(kind, value, trace);
    return found;
}

/* As Python does with the file of `python main.py`, from where it has opened it. Does not return. */
static void run_program(FILE *file, const char *path) {
    bool is_interrupt = false;
    python.take_lock();
    /* A module of its own: the one that was there when we froze what exists would never be taken apart. */
    object *main = python.new_module("__main__"), *names = python.names_of(main);
    if (python.update(names, python.names_of(python.module("__main__"))) < 0)
        python.clear_error();
    python.set_text(python.import_modules(), "__main__", main);
    python.let_go(main);
    object *loaders = python.import_module("_frozen_importlib_external");
    python.set_text(names, "__file__", python.text(path));
    python.set_text(names, "__cached__", python.none);
    python.set_text(names, "__loader__", python.call(loaders, "SourceFileLoader", "ss", "__main__", path));
    object *last = python.capsule(&exit_code, NULL, leave);
    python.set_text(python.own_data(python.interpreter()), "soda", last);
    python.let_go(last);
    bool is_done = python.run(file, path, FILE_INPUT, names, names, 1, NULL) != NULL;
    exit_code = is_done ? 0 : code_of_error(&is_interrupt);
    if (!is_done) {
        python.print_error(); /* does not return from SystemExit */
        exit_code = is_interrupt ? -1 : 1;
    }
    if (python.forget_text(names, "__file__") < 0 || python.forget_text(names, "__cached__") < 0)
        python.clear_error();
    int status = python.finalize();
    if (is_interrupt) {
        signal(SIGINT, SIG_DFL);
        kill(getpid(), SIGINT);
    }
    exit(status < 0 ? 120 : !is_done);
}

static void keep_modules(void) {
    static struct {
        const char *name;
        object *(*function)(object *, object *);
        int flags; /* it takes no arguments */
        const char *doc;
    } definition = {"leave_modules", leave_modules, 4, NULL};
    object *modules = python.import_modules(), *atexit = python.import_module("atexit"), *name, *module;
    ssize_t place = 0;
    if (!atexit || !modules || !python.call(atexit, "register", "O", python.function(&definition, NULL, NULL)))
        return;
    object *own[] = {python.module("__main__"), python.module("sys"), python.module("builtins")};
    while (kept_count < MAX_KEPT && python.next(modules, &place, &name, &module)) {
        if (module == own[0] || module == own[1] || module == own[2])
            continue;
        python.keep(name);
        python.keep(module);
        kept[kept_count].name = name;
        kept[kept_count++].module = module;
    }
}

static bool warm_up(void) {
    if (!find_functions())
        return false;
    int lock = python.take_lock(); /* Python opens files without it */
    for (char *rest = preloaded, *name; (name = strsep(&rest, ","));)
        if (*name && !python.import_module(name))
            python.clear_error();
    keep_modules();
    object *gc = python.import_module("gc"); /* what exists now is never looked at again, so no page of it is copied */
    if (gc) {
        python.call(gc, "collect", NULL);
        python.call(gc, "freeze", NULL);
    }
    object *finders = python.of_system("path_importer_cache"); /* they have seen an empty folder */
    if (finders)
        python.forget_text(finders, BOX);
    python.clear_error();
    python.leave_lock(lock);
    return true;
}

static void wait_for_programs(void) {
    static jmp_buf program;
    if (!warm_up())
        _exit(1);
    if (setjmp(program) == 0) {
        tell(CONTROL, 'R', NULL, 0);
        serve(&program);
    }
}

static FILE *open_file(const char *function, const char *path, const char *mode) {
    FILE *(*original)(const char *, const char *) =
        (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, function);
    if (!*awaited || strcmp(path, awaited) != 0)
        return original(path, mode);
    wait_for_programs();
    FILE *file = original(path, mode);
    if (file) {
        awaited[0] = 0;
        run_program(file, path);
    }
    return file;
}

VISIBLE FILE *fopen(const char *path, const char *mode) { return open_file("fopen", path, mode); }
VISIBLE FILE *fopen64(const char *path, const char *mode) { return open_file("fopen64", path, mode); }
