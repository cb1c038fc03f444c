/* check.h: how C tests and fuzz targets say what does not hold: file, line, claim; then the process ends. */
#ifndef TEST_CHECK_H
#define TEST_CHECK_H
#include <stdio.h>
#include <stdlib.h>

#define CHECK(claim) \
  do { \
    if (!(claim)) { \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #claim); \
      abort(); \
    } \
  } while (0)
#endif
