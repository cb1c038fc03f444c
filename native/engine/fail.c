/* fail.c: how the engine tells people what is wrong: one sentence, and the remedy.
 * stdout stays empty; everything goes to stderr, which the service manager keeps. */
#include "engine.h"
#include <stdarg.h>
#include <unistd.h>

static bool as_json;

void fail_use_json(bool json) { as_json = json; }

static void json_string(FILE *out, const char *key, const char *text) {
  fprintf(out, "\"%s\": \"", key);
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c == '"' || *c == '\\') fprintf(out, "\\%c", *c);
    else if (*c < 0x20) fprintf(out, "\\u%04x", *c);
    else fputc(*c, out);
  }
  fputc('"', out);
}

int fail(int code, const char *hint, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (as_json) {
    fputc('{', stderr);
    json_string(stderr, "error", text);
    fputs(", ", stderr);
    json_string(stderr, "hint", hint);
    fprintf(stderr, ", \"exit\": %d}\n", code);
  } else {
    fprintf(stderr, "ipshare-engine: %s; %s\n", text, hint);
  }
  fflush(stderr);
  return code;
}
