/* ips_load_error.c: why an image was refused, for people. One sentence for each enum ips_load_error. */
#include "ips_core.h"

const char *ips_load_error_text(int error) {
  static const char *const texts[] = {
    [IPS_LOAD_OK] = "the image is fine",
    [IPS_LOAD_TRUNCATED] = "the image is shorter than its header says, or the counts contradict its size",
    [IPS_LOAD_BAD_MAGIC] = "not a table image",
    [IPS_LOAD_BAD_VERSION] = "a version, flag or role that this core does not know",
    [IPS_LOAD_BAD_RECORD_SIZE] = "records of another size: image and core were built from different sources",
    [IPS_LOAD_BAD_DIGEST] = "digest does not match: the image was damaged or not written to its end",
    [IPS_LOAD_STALE_BASE] = "the delta is not based on the live generation",
    [IPS_LOAD_STALE_TERM] = "term and revision are older than what was committed before",
    [IPS_LOAD_BAD_FAMILY] = "address family is neither 4 nor 6, or an IPv4 address is longer than four bytes",
    [IPS_LOAD_BAD_PREFIX] = "prefix length out of range, or host bits set",
    [IPS_LOAD_BAD_KIND] = "unknown kind or flag of a binding, or a removal in a complete image",
    [IPS_LOAD_BAD_TARGET] = "target does not exist, has the other family, or cannot be bound to",
    [IPS_LOAD_BAD_OFFSET] = "the binding does not fit into the local prefix, or is not aligned to its length",
    [IPS_LOAD_NOT_SORTED] = "bindings do not ascend by family, global prefix and length",
    [IPS_LOAD_DUPLICATE] = "the same global prefix is bound twice",
    [IPS_LOAD_OUTSIDE] = "the binding is in no Global Network",
    [IPS_LOAD_OVERLAP] = "two bindings claim one local address",
    [IPS_LOAD_TOO_LARGE] = "more records or addresses than the core can index",
    [IPS_LOAD_NO_MEMORY] = "out of memory",
    [IPS_LOAD_BAD_POLICY] =
      "policy without members or weights, with a member twice, or with a table size that will not do",
    [IPS_LOAD_BAD_ENDPOINT] =
      "encapsulation without a tunnel, an incomplete tunnel, or an impossible path MTU",
    [IPS_LOAD_BAD_PEER] = "a member of a group has an address that no host may have, or moves to where it is",
    [IPS_LOAD_BAD_NETWORK] = "Global Networks overlap, or a field of one is out of range",
  };
  return error >= 0 && (size_t)error < sizeof texts / sizeof *texts ? texts[error] : NULL;
}
