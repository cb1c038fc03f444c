/* ips_remap.c: the decision table of a remap (DESIGN.md 9), pure; and the names of what is counted.
 *
 * Whose is the packet? A flow's owner delivers it; what nobody knows and opens a flow belongs to whoever
 * opens flows now; what nobody knows and opens nothing is the oldest owner's, whose tracking may have begun
 * after the flow did. A packet crosses at most twice: FINAL is delivered, and of ASK the answer is here or
 * FINAL. tests/models/remap.py holds this function against every order of events.
 */
#include "ips_remap_api.h"

enum { NOBODY = 255 };

static bool gives(uint8_t role) { return role == IPS_REMAP_PREPARING || role == IPS_REMAP_LEAVING; }

/* What this node's remaps of one address come to. */
struct stand { uint8_t successor, oldest; }; /* relations, or NOBODY: this node opens, is the oldest */

/* READY counts only for who asks: nothing from the network goes differently because of it. */
static struct stand stand_of(const struct ips_remap_case *c) {
  struct stand s = {NOBODY, NOBODY};
  bool asked = c->from == IPS_FROM_ASK, is_first = true;
  for (uint8_t i = 0; i < c->n; i++) {
    uint8_t role = c->at[i].role;
    if (role == IPS_REMAP_READY && !asked) continue;
    /* The last one that began holds; who prepares to give it again goes on as it was. */
    if (role != IPS_REMAP_PREPARING) s.successor = role == IPS_REMAP_LEAVING ? i : NOBODY;
    if (gives(role)) continue;
    if (is_first && !(c->at[i].flags & IPS_REMAP_UNKNOWN_HERE)) s.oldest = i;
    is_first = false;
  }
  return s;
}

/* The relation whose peer has the flow, as far as this node knows; the last one that began first. */
static uint8_t owner_of(const struct ips_remap_case *c, uint8_t known) {
  for (uint8_t i = c->n; i-- > 0;) {
    const struct ips_remap_relation *r = &c->at[i];
    bool asked = c->from == IPS_FROM_ASK;
    if (r->known != known || gives(r->role) || (r->role == IPS_REMAP_READY && !asked)) continue;
    if (asked && c->opens && r->peer == c->asker) continue; /* it has just said that it has not */
    return i;
  }
  return NOBODY;
}

static struct ips_remap_way_out go(uint8_t what, uint8_t to) { return (struct ips_remap_way_out){what, to}; }

/* Asked, and leaving itself: who asks is the one that opens now, or has not heard yet who that is; what is
 * dropped then comes again. */
static struct ips_remap_way_out unknown(const struct ips_remap_case *c, struct stand s) {
  const struct ips_remap_way_out oldest =
    s.oldest == NOBODY ? go(IPS_GO_HERE, 0) : go(IPS_GO_FINAL, s.oldest);
  if (s.successor == NOBODY) return c->opens ? go(IPS_GO_OPEN, 0) : oldest;
  if (c->from == IPS_FROM_NETWORK) return go(IPS_GO_ASK, s.successor);
  if (c->at[s.successor].peer != c->asker) return go(IPS_GO_NOWHERE, 0);
  return c->opens ? go(IPS_GO_FINAL, s.successor) : oldest;
}

struct ips_remap_way_out ips_remap_decide(const struct ips_remap_case *c) {
  if (c->from == IPS_FROM_FINAL || c->own == IPS_FLOW_OPEN) return go(IPS_GO_HERE, 0);
  struct stand s = stand_of(c);
  uint8_t owner = owner_of(c, IPS_FLOW_OPEN);
  if (owner != NOBODY) return go(IPS_GO_FINAL, owner);
  if (c->opens) return unknown(c, s); /* a SYN on a closed flow is an opening */
  /* What lingers may have been opened anew where flows are opened now: only there it is known. */
  if (s.successor != NOBODY) return unknown(c, s);
  if (c->own == IPS_FLOW_CLOSED) return go(IPS_GO_HERE, 0);
  owner = owner_of(c, IPS_FLOW_CLOSED);
  return owner != NOBODY ? go(IPS_GO_FINAL, owner) : unknown(c, s);
}

/* ---- counters ------------------------------------------------------------------- */

static const struct { const char *name, *text; } counters[] = {
#define M(name, text) {#name, text},
#include "ips_remap.def"
#undef M
};
_Static_assert(sizeof counters / sizeof *counters <= (size_t)IPS_REMAP_COUNTERS, "states have room for every counter");

int ips_remap_counters(void) { return sizeof counters / sizeof *counters; }
const char *ips_remap_counter_name(int i) { return i >= 0 && i < ips_remap_counters() ? counters[i].name : NULL; }
const char *ips_remap_counter_text(int i) { return i >= 0 && i < ips_remap_counters() ? counters[i].text : NULL; }
