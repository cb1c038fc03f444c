/* ips_witness_api.h: the witness of a pair: a third voter that supports one node at a time (ips_pair_quorum.c).
 *
 * Rules and records only: no socket, clock or disk. Who runs a witness opens one sealed channel to each node
 * (ips_seal_api.h), decodes a question, judges it, has a promise that is new on its disk, and answers. A grant is for
 * one reign (counter, node) and for ttl_ns: of the witness's clock from when the question came, of the node's from when
 * it asked. After a restart the witness waits until what it may have granted has ended. Read by cffi too.
 */
#ifndef IPS_WITNESS_API_H
#define IPS_WITNESS_API_H
#include "ips_pair_api.h"

enum ips_witness_const { IPS_WITNESS_BYTES = 40 };
enum ips_witness_kind {
  IPS_WITNESS_ASK = 1,     /* for reign `counter` of the sender; 0: only what is the highest? */
  IPS_WITNESS_RELEASE = 2, /* the sender does not use the grant for reign `counter` any more */
  IPS_WITNESS_ANSWER = 3,
};
struct ips_witness_msg {
  uint8_t kind;
  uint8_t answer;       /* enum ips_pair_answer; 0 in questions */
  uint8_t zero[6];
  uint64_t counter;
  uint64_t asked_ns;    /* of the node's clock; an answer has that of its question */
  uint64_t ttl_ns;      /* how long the grant is to last */
  struct ips_pair_epoch highest; /* answers: what was last granted to anyone; counter 0: nothing known */
};
/* Writes IPS_WITNESS_BYTES. */
void ips_witness_encode(const struct ips_witness_msg *m, uint8_t *out);
/* False: another length, version or kind, or a value out of range; *m is not written then. */
bool ips_witness_decode(const uint8_t *bytes, size_t n, struct ips_witness_msg *m);

/* What was promised. */
struct ips_witness {
  struct ips_pair_epoch granted; /* counter 0: nothing known */
  uint64_t ttl_ns;               /* of that grant */
  uint64_t until_ns;             /* nobody else before */
  uint64_t longest_ns;           /* no grant lasts longer */
  uint64_t asked_ns;             /* of the question that it answers; of the holder's clock */
};
/* granted, ttl_ns: as read from the disk; counter 0: nothing was there, so the longest grant is waited for. */
void ips_witness_start(struct ips_witness *w, struct ips_pair_epoch granted, uint64_t ttl_ns, uint64_t longest_ns,
                       uint64_t now_ns);
/* An IPS_WITNESS_ASK of `node`: enum ips_pair_answer. GRANTED and another (granted, ttl_ns) than on the disk: it has
 * to be there before the answer is sent. */
int ips_witness_judge(struct ips_witness *w, uint32_t node, const struct ips_witness_msg *m, uint64_t now_ns);
/* An IPS_WITNESS_RELEASE; one that was overtaken by a later question counts for nothing. */
void ips_witness_release(struct ips_witness *w, uint32_t node, const struct ips_witness_msg *m, uint64_t now_ns);

#endif
