/* A warm interpreter: loaded before Python's own libraries, it stops Python just before it opens the program's file
 * and from there makes a copy for each program. What follows is Python's own start of `python main.py`, unchanged.
 *
 * SODA_WAIT_FOR names that file, SODA_PRELOAD modules to import before.
 */
#define _GNU_SOURCE
#include "jail.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default"))) /* found before the C library's own */
#define LIBRARY 4 /* the descriptor by which the launcher named this library */

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

/* Functions of Python, which is not there at compile time; an interpreter that hides them goes without. */
typedef void *(*with_text)(const char *);
typedef void *(*with_nothing)(void);
typedef void *(*with_object_and_text)(void *, const char *, ...);
typedef int (*delete_item)(void *, const char *);
typedef int (*take_lock)(void);
typedef void (*leave_lock)(int);

static void warm_up(void) {
    with_text load = (with_text)dlsym(RTLD_DEFAULT, "PyImport_ImportModule");
    with_text of_system = (with_text)dlsym(RTLD_DEFAULT, "PySys_GetObject");
    with_object_and_text call = (with_object_and_text)dlsym(RTLD_DEFAULT, "PyObject_CallMethod");
    delete_item forget = (delete_item)dlsym(RTLD_DEFAULT, "PyDict_DelItemString");
    with_nothing clear = (with_nothing)dlsym(RTLD_DEFAULT, "PyErr_Clear");
    take_lock take = (take_lock)dlsym(RTLD_DEFAULT, "PyGILState_Ensure"); /* Python opens files without its lock */
    leave_lock leave = (leave_lock)dlsym(RTLD_DEFAULT, "PyGILState_Release");
    if (!load || !of_system || !call || !forget || !clear || !take || !leave)
        return;
    int lock = take();
    for (char *rest = preloaded, *name; (name = strsep(&rest, ","));)
        if (*name && !load(name))
            clear();
    void *gc = load("gc"); /* nothing of what exists now is ever looked at again, so no page of it is copied */
    if (gc) {
        call(gc, "collect", NULL);
        call(gc, "freeze", NULL);
    }
    void *finders = of_system("path_importer_cache"); /* they have seen an empty folder */
    if (finders && forget(finders, BOX) < 0)
        clear();
    clear();
    leave(lock);
}

static void wait_for_programs(void) {
    static jmp_buf program;
    awaited[0] = 0;
    warm_up();
    if (setjmp(program) == 0) {
        tell(CONTROL, 'R', NULL, 0);
        serve(&program);
    }
}

static FILE *open_file(const char *function, const char *path, const char *mode) {
    if (*awaited && strcmp(path, awaited) == 0)
        wait_for_programs();
    FILE *(*original)(const char *, const char *) =
        (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, function);
    return original(path, mode);
}

VISIBLE FILE *fopen(const char *path, const char *mode) { return open_file("fopen", path, mode); }
VISIBLE FILE *fopen64(const char *path, const char *mode) { return open_file("fopen64", path, mode); }
